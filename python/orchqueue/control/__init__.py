"""The control plane's HTTP: an ASGI app behind the front door, one module per resource."""
