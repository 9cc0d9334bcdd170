"""What watches the platform: Prometheus' configuration, its alerts, a dashboard; and the promtool that tests them."""
