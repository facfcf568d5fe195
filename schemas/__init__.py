"""The wire contract of Apportion: envelope, event types, generated documents. Needs nothing but pydantic."""
