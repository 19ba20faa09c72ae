"""Other packs beside ours in one graph: both do what they do alone."""

import copy

import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode

from zmagic.guidance.settings import preset
from zmagic.host.hooks import HostSettings, attach
from zmagic.host.run import KEY

from . import architectures
from .derivatives import repeated
from .test_hooks import CHEAP, EPS, conditions, sample

OFF = HostSettings(preset("balanced", strength=0.0), "linear_rgb")
# Guidance so weak that nothing but the neighbor's own effect is left.
WEAK = HostSettings(preset("faithful", strength=1e-7, time_travel=1), "linear_rgb")
# A repeat whose latent is the one before but for a correction of no size.
WEAK_REPEATS = HostSettings(
    preset("balanced", strength=1e-7, time_travel=3, fresh_noise=0.0), "linear_rgb"
)


@pytest.fixture(scope="module")
def specimen():
    with torch.inference_mode():
        return architectures.DIFFUSION[EPS]()


def guided(specimen, model, settings=CHEAP, conds=None, **options):
    traces = []
    conds = conditions() if conds is None else conds
    model = attach(model, conds, settings, on_finish=traces.append)
    return sample(specimen, model, **options), traces[0]


@pytest.mark.parametrize("settings", [OFF, CHEAP], ids=["strength 0", "guided"])
def test_options_may_be_copied_deeply_and_no_weights_are(specimen, settings):
    copies = []

    def pre_cfg(args):
        copies.append(copy.deepcopy(args["model_options"]))
        return args["conds_out"]

    model = specimen.patcher.clone()
    model.set_model_sampler_pre_cfg_function(pre_cfg)
    network = torch.nn.Linear(2, 2)
    conds = conditions()
    conds[0].energy.network = network  # what a deep copy of an attachment would copy
    samples, trace = guided(specimen, model, settings, conds)
    assert torch.isfinite(samples).all() and not trace.warnings and copies
    wrappers = copies[0]["transformer_options"]["wrappers"]
    (ours,) = wrappers[comfy.patcher_extension.WrappersMP.PREDICT_NOISE][KEY]
    assert ours.__self__.attachment.conditions[0].energy.network is network


def test_a_deep_copy_of_the_options_does_not_hide_the_cfg_gap(specimen):
    model = specimen.patcher.clone()
    model.set_model_sampler_pre_cfg_function(
        lambda args: (
            args["model_options"].update(copy.deepcopy(args["model_options"])) or args["conds_out"]
        )
    )
    settings = HostSettings(preset("fast", step_rule="freedom"), "linear_rgb")
    with_copy, _ = guided(specimen, model, settings)
    alone, _ = guided(specimen, specimen.patcher, settings)
    assert torch.allclose(with_copy, alone, rtol=1e-4, atol=1e-5)


def momentum_in(options_of):
    """A guidance with momentum whose state lies in the model options, as other packs' do."""

    def post_cfg(args):
        state = options_of(args["model_options"])
        before = state.get("momentum")
        state["momentum"] = (
            args["denoised"].detach()
            if before is None
            else (0.5 * before + args["denoised"].detach())
        )
        state["calls"] = state.get("calls", 0) + 1
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before

    return post_cfg


def momentum_in_a_variable():
    momentum = None

    def post_cfg(args):
        nonlocal momentum
        before = momentum
        momentum = args["denoised"].detach()
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before

    return post_cfg


class MomentumInAnObject:
    def __init__(self):
        self.momentum = None

    def __call__(self, args):
        before, self.momentum = self.momentum, args["denoised"].detach()
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before


def momentum_in_a_dict_around():
    state = {}

    def post_cfg(args):
        before, state["momentum"] = state.get("momentum"), args["denoised"].detach()
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before

    return post_cfg


def momentum_in_a_default():
    def post_cfg(args, state={}):  # noqa: B006
        before, state["momentum"] = state.get("momentum"), args["denoised"].detach()
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before

    return post_cfg


class MomentumInADictOfAnObject:
    def __init__(self):
        self.state = {}

    def post_cfg(self, args):
        before, self.state["momentum"] = self.state.get("momentum"), args["denoised"].detach()
        return args["denoised"] if before is None else args["denoised"] + 0.2 * before


STATEFUL = {
    "dict around": momentum_in_a_dict_around,
    "default": momentum_in_a_default,
    "dict of an object": lambda: MomentumInADictOfAnObject().post_cfg,
    "options": lambda: momentum_in(lambda options: options),
    "nested options": lambda: momentum_in(lambda options: options.setdefault("pack", {})),
    "transformer options": lambda: momentum_in(lambda options: options["transformer_options"]),
    "variable": momentum_in_a_variable,
    "object": MomentumInAnObject,
}

# A repeat keeps and gives back states as a look-ahead does: one of each kind of place is enough.
REPEATED = ("dict around", "object", "transformer options")


@pytest.mark.parametrize(
    ("state", "settings"),
    [
        *(pytest.param(state, WEAK, id=f"{state}-look-aheads") for state in STATEFUL),
        *(pytest.param(state, WEAK_REPEATS, id=f"{state}-repeats") for state in REPEATED),
    ],
)
def test_a_neighbor_with_a_state_advances_once_a_step(specimen, state, settings):
    """At no strength the picture is the neighbor's own, whose state has come as far as alone."""

    def run(attached):
        model = specimen.patcher.clone()
        model.set_model_sampler_post_cfg_function(STATEFUL[state]())
        if not attached:
            return sample(specimen, model, steps=3)
        return guided(specimen, model, settings, steps=3)[0]

    plain = sample(specimen, specimen.patcher, steps=3)
    alone, together = run(False), run(True)
    assert (alone - plain).norm() > 0.01 * plain.norm()
    assert (together - alone).norm() < 1e-3 * alone.norm()


def test_a_step_that_fails_with_gradients_advances_a_neighbor_once(specimen):
    def run(attached):
        model = specimen.patcher.clone()
        model.set_model_sampler_post_cfg_function(momentum_in_a_dict_around())

        def fails(args):
            if args["denoised"].requires_grad:
                raise RuntimeError("no gradients here")
            return args["denoised"]

        model.set_model_sampler_post_cfg_function(fails)
        return (
            guided(specimen, model, WEAK, steps=4)[0]
            if attached
            else sample(specimen, model, steps=4)
        )

    alone, together = run(False), run(True)
    assert (together - alone).norm() < 1e-3 * alone.norm()


def test_options_that_a_neighbor_replaces_are_given_back_as_they_were(specimen):
    seen = []

    def pre_cfg(args):
        options = args["model_options"]
        options["transformer_options"] = copy.copy(options["transformer_options"])
        seen.append("optimized_attention_override" in options["transformer_options"])
        return args["conds_out"]

    model = specimen.patcher.clone()
    model.set_model_sampler_pre_cfg_function(pre_cfg)
    guided(specimen, model, CHEAP, conditions(end=0.5), steps=4)
    assert seen[0] and not seen[-1]


def test_guidance_with_momentum_of_the_host_keeps_its_effect(specimen):
    def model():
        return APG.execute(specimen.patcher, eta=1.0, norm_threshold=5.0, momentum=0.5).args[0]

    alone = sample(specimen, model(), steps=4)
    together = guided(specimen, model(), WEAK_REPEATS, steps=4)[0]
    assert (together - alone).norm() < 1e-3 * alone.norm()


@pytest.mark.parametrize("before", [True, False], ids=["in front of Z-Magic", "behind Z-Magic"])
def test_a_skipped_forward_is_no_forward_and_has_no_jacobian(specimen, before):
    """EasyCache answers with ``x + residual``, whose gradient is not the model's."""

    def cached(model):
        return EasyCacheNode.execute(model, 1e9, 0.0, 1.0, False).args[0]

    traces = []
    model = cached(specimen.patcher) if before else specimen.patcher
    model = attach(model, conditions(), CHEAP, on_finish=traces.append)
    samples = sample(specimen, model if before else cached(model), steps=6)
    (trace,) = traces
    assert torch.isfinite(samples).all()
    forwards = trace.totals()["forwards"]
    skipped = forwards["denoiser reused"]
    assert skipped > 0 and skipped + forwards["denoiser"] == 6
    assert len(trace.warnings) == 1 and "carries no gradient" in trace.warnings[0]
    assert sum(step.path == "image_no_backprop" for step in trace.steps) == skipped
    assert trace.totals()["backwards"]["denoiser"] == forwards["denoiser"]


def test_a_skipped_forward_is_not_repeated(specimen):
    model = EasyCacheNode.execute(specimen.patcher, 1e9, 0.0, 1.0, False).args[0]
    settings = HostSettings(preset("quality"), "linear_rgb")
    trace = guided(specimen, model, settings, steps=6)[1]
    per_step = [sum(record.step == k for record in trace.steps) for k in range(6)]
    assert per_step[0] == 3 and set(per_step[1:]) <= {1, 3} and 1 in per_step


def test_a_skipped_plain_forward_is_not_counted(specimen):
    model = EasyCacheNode.execute(specimen.patcher, 1e9, 0.0, 1.0, False).args[0]
    trace = guided(specimen, model, CHEAP, conditions(end=0.0, start=0.0), steps=6)[1]
    assert 0 < trace.plain_forwards < 6


def test_a_residual_that_a_replaced_forward_repeats_is_noticed(specimen):
    """TeaCache does it: the model is called, and most of it does not run."""
    unet = specimen.patcher.model.diffusion_model
    forward, kept = unet._forward, []

    def replaced(x, *args, **kwargs):
        if kept:
            return x + kept[0]
        out = forward(x, *args, **kwargs)
        kept.append((out - x).detach())
        return out

    unet._forward = replaced
    try:
        trace = guided(specimen, specimen.patcher, steps=4)[1]
    finally:
        del unet._forward
    assert trace.totals()["forwards"]["denoiser reused"] == 3
    assert len(trace.warnings) == 1 and "carries no gradient" in trace.warnings[0]


def test_a_cache_that_answers_before_z_magic_is_asked_is_named(specimen):
    """LazyCache connected in front of Z-Magic wraps it: steps it answers are not guided."""
    lazy = LazyCacheNode.execute(specimen.patcher, 1e9, 0.0, 1.0, False).args[0]
    trace = guided(specimen, lazy, CHEAP, steps=6)[1]
    unguided = 6 - len({record.step for record in trace.steps})
    assert unguided > 0
    assert any(f"{unguided} of 6 steps were not guided" in w for w in trace.warnings)


def test_a_cache_behind_z_magic_leaves_every_step_guided(specimen):
    traces = []
    model = attach(specimen.patcher, conditions(), CHEAP, on_finish=traces.append)
    sample(specimen, LazyCacheNode.execute(model, 1e9, 0.0, 1.0, False).args[0], steps=6)
    assert {record.step for record in traces[0].steps} == set(range(6))
    assert traces[0].totals()["forwards"]["denoiser reused"] > 0


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_prediction_may_come_as_one_of_several(specimen, monkeypatch, kind):
    """LanPaint returns it so: the first is guided, the others go on as they are."""
    plain = comfy.samplers.CFGGuider.predict_noise
    seen = []

    def predict_noise(self, *args, **kwargs):
        prediction = plain(self, *args, **kwargs)
        return kind((prediction, prediction * 2.0))

    def outermost(executor, *args, **kwargs):
        answer = executor(*args, **kwargs)
        seen.append(answer)
        return answer[0]

    alone = guided(specimen, specimen.patcher)[0]
    monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", predict_noise)
    model = specimen.patcher.clone()
    wrapper = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    model.add_wrapper_with_key(wrapper, "outer", outermost)
    assert torch.allclose(guided(specimen, model)[0], alone, rtol=1e-4, atol=1e-5)
    assert seen and all(type(answer) is kind and len(answer) == 2 for answer in seen)
    assert not any(each.requires_grad for answer in seen for each in answer)


def test_an_answer_that_is_no_prediction_is_refused_in_a_sentence(specimen, monkeypatch):
    monkeypatch.setattr(comfy.samplers.CFGGuider, "predict_noise", lambda *a, **k: {"x0": 1})
    with pytest.raises(TypeError, match="another node that replaces the prediction.*got dict"):
        guided(specimen, specimen.patcher)


@pytest.mark.parametrize("path", ["prediction", "image", "full"])
def test_blocks_that_run_without_gradients_are_noticed(specimen, path):
    """Token Perturbation Guidance runs them so; what is left of the gradient is not the slope."""
    model = specimen.patcher.clone()
    unet = model.model.diffusion_model
    for name, module in unet.named_modules():
        if type(module).__name__ == "BasicTransformerBlock":
            model.add_object_patch(
                f"diffusion_model.{name}.forward", torch.no_grad()(module.forward)
            )
    settings = HostSettings(preset("faithful", gradient_path=path), "linear_rgb")
    samples, trace = guided(specimen, model, settings)
    assert torch.isfinite(samples).all()
    assert len(trace.warnings) == 1 and "carries no gradient" in trace.warnings[0]
    without = "image_no_backprop" if path == "image" else "no_backprop"
    assert {record.path for record in trace.steps} == {without}
    assert trace.totals()["forwards"] == {"denoiser": 3, "decoder": 3 if path == "image" else 15}


@pytest.mark.parametrize("path", ["prediction", "image", "full"])
def test_a_model_computed_in_part_without_gradients_is_noticed(specimen, path):
    """The prediction then requires a gradient, and has a wrong one."""
    model = specimen.patcher.clone()

    def blocked(apply_model, args):
        with torch.no_grad():
            answer = apply_model(args["input"], args["timestep"], **args["c"])
        return answer + 0.01 * args["input"]

    model.set_model_unet_function_wrapper(blocked)
    settings = HostSettings(preset("faithful", gradient_path=path), "linear_rgb")
    samples, trace = guided(specimen, model, settings)
    assert torch.isfinite(samples).all()
    assert len(trace.warnings) == 1 and "not the slope of its prediction" in trace.warnings[0]
    without = "image_no_backprop" if path == "image" else "no_backprop"
    assert {record.path for record in trace.steps[-2:]} == {without}
    assert trace.totals()["forwards"]["denoiser check"] == 2  # the second one nearer


def test_a_right_gradient_costs_one_forward_once(specimen):
    trace = guided(specimen, specimen.patcher, HostSettings(preset("balanced"), "linear_rgb"))[1]
    assert not trace.warnings
    assert trace.totals()["forwards"]["denoiser check"] == 1


def test_a_model_that_fails_with_gradients_is_guided_without_them(specimen):
    model = specimen.patcher.clone()

    def fails(apply_model, args):
        if args["input"].requires_grad:
            raise RuntimeError("this patch knows no gradients\n  at line 1")
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(fails)
    samples, trace = guided(specimen, model)
    assert torch.isfinite(samples).all()
    (warning,) = trace.warnings
    assert "this patch knows no gradients at line 1" in warning
    assert {record.path for record in trace.steps} == {"image_no_backprop"}


def test_an_error_that_has_nothing_to_do_with_gradients_is_the_hosts_own(specimen):
    model = specimen.patcher.clone()

    def fails(apply_model, args):
        raise RuntimeError("broken patch")

    model.set_model_unet_function_wrapper(fails)
    with pytest.raises(RuntimeError, match="broken patch"):
        guided(specimen, model)


@pytest.mark.parametrize("before", [True, False], ids=["outside", "inside"])
def test_a_second_wrapper_of_the_prediction(specimen, before):
    """It sees the guided prediction outside ours, and the plain one inside."""
    calls = []

    def wrapper(executor, x, timestep, model_options=None, seed=None):
        calls.append(x.requires_grad)
        return executor(x, timestep, model_options, seed) * 1.0

    kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    model = specimen.patcher.clone()
    if before:
        model.add_wrapper_with_key(kind, "other", wrapper)
    model = attach(model, conditions(), CHEAP)
    if not before:
        model.add_wrapper_with_key(kind, "other", wrapper)
    samples = sample(specimen, model)
    assert torch.allclose(samples, guided(specimen, specimen.patcher)[0], rtol=1e-4, atol=1e-5)
    assert calls and any(calls) is not before


def test_one_node_may_sample_again_and_again(specimen):
    """Detailers do it: the same model, several runs, other sizes, each as if it were the first."""
    model = attach(specimen.patcher, conditions(), CHEAP)
    small = {"samples": torch.zeros(2, 4, 8, 8)}
    large = {"samples": torch.zeros(2, 4, 8, 12)}
    first = sample(specimen, model, latent=small)
    assert sample(specimen, model, latent=large).shape[-1] == 12
    assert repeated(sample(specimen, model, latent=small), first)
    assert not hasattr(model, KEY)


def test_the_model_may_be_asked_tile_by_tile(specimen):
    """Another node between us and the model calls it with parts of the latent."""
    model = specimen.patcher.clone()

    def tiles(apply_model, args):
        c = args["c"]
        left, right = args["input"].chunk(2, dim=-1)
        parts = [apply_model(part, args["timestep"], **c) for part in (left, right)]
        return torch.cat(parts, dim=-1)

    model.set_model_unet_function_wrapper(tiles)
    samples, trace = guided(specimen, model)
    assert torch.isfinite(samples).all() and not trace.warnings
    assert {record.path for record in trace.steps} == {"image"}


def test_a_node_outside_may_ask_for_tiles_of_the_prediction(specimen):
    def tiles(executor, x, timestep, model_options=None, seed=None):
        parts = [executor(part, timestep, model_options, seed) for part in x.chunk(2, dim=-1)]
        return torch.cat(parts, dim=-1)

    model = specimen.patcher.clone()
    kind = comfy.patcher_extension.WrappersMP.PREDICT_NOISE
    model.add_wrapper_with_key(kind, "tiles", tiles)
    settings = HostSettings(preset("balanced", momentum=0.5, random_shift=2), "linear_rgb")
    samples, trace = guided(specimen, model, settings)
    assert torch.isfinite(samples).all() and samples.shape[-1] == 8


def test_a_patch_that_differentiates_itself_is_guided_beside(specimen):
    """torch.func takes no gradient inside ours: then the model is asked as without guidance."""

    def post_cfg(args):
        def energy(latent):
            return latent.square().mean()

        return args["denoised"] - 0.01 * torch.func.grad(energy)(args["denoised"])

    model = specimen.patcher.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    samples, trace = guided(specimen, model)
    assert torch.isfinite(samples).all()
    assert len(trace.warnings) == 1 and "torch.func.{grad" in trace.warnings[0]


def test_without_its_jacobian_the_model_runs_as_in_plain_sampling(specimen):
    modes = []

    def post_cfg(args):
        options = args["model_options"]["transformer_options"]
        modes.append((torch.is_inference_mode_enabled(), "optimized_attention_override" in options))
        return args["denoised"]

    model = specimen.patcher.clone()
    model.set_model_sampler_post_cfg_function(post_cfg)
    guided(specimen, model, HostSettings(preset("fast"), "linear_rgb"))
    assert set(modes) == {(True, False)}
