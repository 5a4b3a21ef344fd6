"""Planning under uncertainty: scenarios of what may come, seasons found live, and replicas chosen by cost."""
