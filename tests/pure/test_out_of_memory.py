"""A guided step that runs out of memory: it takes less, says so, and the run goes on."""

import weakref

import pytest
import torch

from zmagic.guidance.conditions import Condition
from zmagic.guidance.engine import GuidedRun
from zmagic.guidance.settings import preset

from .conftest import SCHEDULE

SIGMA = 2.0
NEVER = 9
STAGES = ("denoiser", "decoder", "energy")
SAVED = "guiding in less memory instead"


class _Passes(torch.autograd.Function):
    """The identity; its backward calls a function."""

    @staticmethod
    def forward(ctx, x, called):
        ctx.called = called
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.called()
        return gradient, None


class Device:
    """It has too little memory for one pass of one stage.

    ``enough`` is the number of savings after which it has; ``NEVER``: only once no graph of the
    denoiser is left.
    """

    def __init__(self, world, stage, backward, enough=1, message=None):
        self.world, self.stage, self.backward = world, stage, backward
        self.enough, self.message = enough, message
        self.saved = self.failures = 0
        self.graph = None  # the denoiser's last prediction with a graph
        self.left = []  # whether it was still there when the next try began

    def _allocate(self):
        if self.saved < self.enough and (self.enough < NEVER or self._graph_is_there()):
            self.failures += 1
            if self.message is None:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            raise RuntimeError(self.message)

    def _graph_is_there(self):
        return self.graph is not None and self.graph() is not None

    def _stage(self, name, function):
        def run(x, *args):
            if name == self.stage:
                if not torch.is_grad_enabled():
                    return function(x, *args)
                if not self.backward:
                    self._allocate()
                else:
                    x = _Passes.apply(x, self._allocate)
            return function(x, *args)

        return run

    def denoise(self, x):
        prediction = self._stage("denoiser", self.world.denoise)(x)
        if prediction.requires_grad:
            self.graph = weakref.ref(prediction)
        return prediction

    def save(self):
        if self.saved >= 1:
            return None
        self.saved += 1
        return SAVED

    def run(self, path, *, saves=True, **settings):
        conditions = tuple(
            Condition(c.name, self._stage("energy", c.energy)) for c in self.world.conditions(2)
        )
        decode = self._stage("decoder", self.world.decode)

        def decoded(latent):
            self.left.append(self._graph_is_there())
            return decode(latent)

        return GuidedRun(
            conditions,
            preset("faithful", gradient_path=path, **settings),
            decode=decoded,
            schedule=SCHEDULE,
            save_memory=self.save if saves else None,
        )


def _expected(world, path):
    return world.run(world.conditions(2), gradient_path=path).predict(
        world.latent(), SIGMA, world.denoise
    )


@pytest.mark.parametrize("path", ["full", "prediction", "image"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("stage", STAGES)
def test_it_takes_less_memory_first_and_keeps_the_jacobian(world, stage, backward, path):
    device = Device(world, stage, backward)
    run, x = device.run(path), world.latent()
    corrected = run.predict(x, SIGMA, device.denoise)
    assert torch.allclose(corrected, _expected(world, path), rtol=1e-10)
    run.predict(x, 1.0, device.denoise)
    assert (device.failures, device.saved) == (1, 1)
    assert run.trace.warnings == [f"not enough memory for the gradient: {SAVED}"]
    assert [record.path for record in run.trace.steps] == [path] * 2


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("path", "without"),
    [("full", "no_backprop"), ("prediction", "no_backprop"), ("image", "image_no_backprop")],
)
def test_then_it_gives_up_the_jacobian_of_the_denoiser(world, path, without, backward, saves):
    device = Device(world, "denoiser", backward, enough=2)
    run, x = device.run(path, saves=saves), world.latent()
    assert torch.allclose(run.predict(x, SIGMA, device.denoise), _expected(world, without))
    failures = 1 + saves
    assert device.failures == failures
    run.predict(x, 1.0, device.denoise)
    assert device.failures == failures  # it is not tried again
    assert len(run.trace.warnings) == failures
    assert without in run.trace.warnings[-1]
    assert [record.path for record in run.trace.steps] == [without] * 2


@pytest.mark.parametrize("enough", [1, 2], ids=["saves", "gives_up"])
@pytest.mark.parametrize("calibrate", [False, True])
def test_the_cost_is_that_of_what_was_made_in_the_end(world, calibrate, enough):
    device = Device(world, "denoiser", backward=False, enough=enough)
    expected = "image" if enough == 1 else "image_no_backprop"
    costs = []
    for run, denoise in (
        (device.run("image", calibrate=calibrate), device.denoise),
        (
            world.run(world.conditions(2), gradient_path=expected, calibrate=calibrate),
            world.denoise,
        ),
    ):
        for sigma in SCHEDULE.sigmas[:2]:
            prediction = run.predict(world.latent(), sigma, denoise)
        costs.append(run.finish(prediction).cost)
    assert device.failures == enough
    assert costs[0] and costs[0] == costs[1]


@pytest.mark.parametrize("stage", ["decoder", "energy"])
def test_a_prediction_that_a_failed_try_has_left_is_counted_once(world, stage):
    device = Device(world, stage, backward=False)
    costs = []
    for run, denoise in (
        (device.run("image_no_backprop"), device.denoise),
        (world.run(world.conditions(2), gradient_path="image_no_backprop"), world.denoise),
    ):
        prediction = run.predict(world.latent(), SIGMA, denoise)
        costs.append(run.finish(prediction).cost)
    assert device.failures == 1
    assert costs[0] and costs[0] == costs[1]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("stage", ["decoder", "energy"])
def test_a_decoder_or_an_energy_may_have_the_memory_of_the_denoisers_graph(world, stage, backward):
    device = Device(world, stage, backward, enough=NEVER)
    run, x = device.run("prediction"), world.latent()
    assert torch.allclose(run.predict(x, SIGMA, device.denoise), _expected(world, "no_backprop"))
    assert device.failures == 2
    # When the last try decoded for the first time, the graph of those before was gone.
    assert device.left[:3] == [True, True, False]


@pytest.mark.parametrize("path", ["prediction", "no_backprop"])
def test_where_nothing_smaller_is_left_the_error_passes(world, path):
    device = Device(world, "energy", backward=False, enough=2)
    run = device.run(path)
    with pytest.raises(torch.OutOfMemoryError):
        run.predict(world.latent(), SIGMA, device.denoise)
    assert device.failures == (3 if path == "prediction" else 2)
    device.enough = 1  # a later step, or the next run, finds memory again
    assert torch.isfinite(run.predict(world.latent(), SIGMA, device.denoise)).all()


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 17.9 GB)",
        "CUDA error: out of memory",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_devices_that_say_it_in_other_words(world, message):
    device = Device(world, "decoder", backward=False, message=message)
    run = device.run("prediction")
    run.predict(world.latent(), SIGMA, device.denoise)
    assert (device.failures, run.trace.steps[0].path) == (1, "prediction")


def test_another_error_is_no_lack_of_memory(world):
    device = Device(world, "decoder", backward=False, message="shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        device.run("prediction").predict(world.latent(), SIGMA, device.denoise)
    assert (device.failures, device.saved) == (1, 0)


def test_a_calibration_that_runs_out_of_memory_leaves_the_strength_that_is_set(world):
    def decode(latent):
        if not torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return world.decode(latent)

    def run(**settings):
        chosen = preset("balanced", **settings)
        return GuidedRun(world.conditions(2), chosen, decode=decode, schedule=SCHEDULE)

    x = world.latent()
    calibrated, plain = run(calibrate=True), run()
    for sigma in SCHEDULE.sigmas[:2]:
        guided = calibrated.predict(x, sigma, world.denoise)
        assert torch.equal(guided, plain.predict(x, sigma, world.denoise))
    assert calibrated.trace.calibration is None
    (warning,) = calibrated.trace.warnings
    assert warning.startswith("not enough memory to calibrate") and "0.3" in warning
