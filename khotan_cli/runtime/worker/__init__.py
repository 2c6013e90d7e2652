"""The worker: who executes runs? Dispatch, the durable engine, execution and maintenance."""
