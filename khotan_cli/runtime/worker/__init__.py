"""The worker executes runs: dispatch, the durable engine, execution and maintenance."""
