"""The only code that touches the host: gradients, decoders, networks, hooks."""
