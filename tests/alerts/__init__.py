"""The alerts of ``ops/alerts.yml`` on a recorded crawl."""
