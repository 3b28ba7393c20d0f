-- Included by steps that read members or payloads: after how many bytes of them a step ends.
local BYTES = 262144
