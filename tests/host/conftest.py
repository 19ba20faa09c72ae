"""Host tests run inside the real ComfyUI, on the CPU, on real architectures of small size."""


def pytest_configure(config):
    config.zmagic_headless.load_host()
