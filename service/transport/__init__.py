"""The Kafka side of the service: reading events, publishing announcements, and looking after both."""
