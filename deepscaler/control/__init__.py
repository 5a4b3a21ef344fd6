"""The control loop: quality gate, guard rails, controller, recorder and self-metrics."""
