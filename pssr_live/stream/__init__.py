"""Streaming: the wire format, the publisher, the control socket, the client (no Qt)."""
