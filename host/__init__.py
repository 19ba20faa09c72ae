"""All code that touches ComfyUI, called the host here: gradients, decoders, networks, hooks."""
