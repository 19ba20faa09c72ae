"""Path tracing with Mitsuba 3, smoothing, background and class mask.

The picture is traced at twice its size without a background. The light that reaches each surface
(the picture divided by the surface's colour) is smoothed along surfaces of the same class, normal
and depth, and on skin a little further in red than in blue: that removes the noise of few samples
and stands for the light that skin scatters below its surface (after d'Eon et al., "Efficient
rendering of human skin", GPU Gems 3, chapter 14, which does the same in texture space).
"""

import numpy as np
from scipy import ndimage

from .geometry import Mesh
from .people import BACKGROUND, Identity, Sitting, jitter
from .scene import CLASS, Camera, Part, Portrait

OVERSAMPLING = 2  # picture elements per side and pixel
MASK_RAYS = 3  # rays per side and pixel; the most frequent class wins
FEATURE_SAMPLES = 3
PATH_DEPTH = 3
MATERIALS: dict[str, dict[str, float]] = {
    "skin": {"roughness": 0.48, "specular": 0.40},
    "eye": {"roughness": 0.06, "specular": 0.60},
    "hair": {"roughness": 0.38, "specular": 0.45},
    "cloth": {"roughness": 0.85, "specular": 0.20},
    "gloss": {"roughness": 0.22, "specular": 0.60},
}
# Radii of the skin's light spread in red, green and blue (m), as short as marble-like softness
# allows at this size; the measured skin profiles of GPU Gems 3 reach about twice as far in red.
SCATTER = (0.0035, 0.0016, 0.0009)
SMOOTHING = ((1, 1.4), (2, 1.4), (4, 1.0))  # passes: step in picture elements, spread in steps
KEY_DISTANCE = 2.3  # m
DEPTH_STEP = 0.012  # m; surfaces farther apart do not share light
LIGHT_LIMIT = 4.0  # brighter single paths (fireflies) are cut


class Renderer:
    """Mitsuba with one variant; `samples` paths per picture element."""

    def __init__(self, variant: str, size: int, samples: int) -> None:
        import mitsuba

        mitsuba.set_variant(variant)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
        self.mitsuba = mitsuba
        self.size = size
        self.samples = samples

    def render(
        self, portrait: Portrait, person: Identity, sitting: Sitting
    ) -> tuple[np.ndarray, np.ndarray]:
        """Picture [size, size, 3] and classes [size, size], both uint8."""
        scene = self._scene(portrait, person, sitting)
        side = self.size * OVERSAMPLING
        beauty = self._trace(
            scene, portrait.camera, side, self.samples, sitting.seed,
            {"type": "path", "max_depth": PATH_DEPTH, "hide_emitters": True},
        )  # fmt: skip
        features = self._trace(
            scene, portrait.camera, side, FEATURE_SAMPLES, sitting.seed,
            {"type": "aov", "aovs": "a:albedo,n:sh_normal,d:depth"},
        )  # fmt: skip
        labels = self._labels(scene, portrait)
        fine = labels.reshape(self.size, MASK_RAYS, self.size, MASK_RAYS)
        mask = _majority(fine.transpose(0, 2, 1, 3).reshape(self.size, self.size, -1))
        pixel = portrait.camera.frame_height() / side
        light = smooth(beauty, features[..., -7:], _resize(labels, side), pixel)
        back = backdrop(side, sitting)
        alpha = np.clip(beauty[..., 3:4], 0.0, 1.0)
        picture = light * exposure(person) + back * (1.0 - alpha)
        picture = picture.reshape(self.size, OVERSAMPLING, self.size, OVERSAMPLING, 3)
        return develop(picture.mean((1, 3))), mask

    def _trace(
        self, scene, camera: Camera, side: int, samples: int, seed: int, integrator: dict
    ) -> np.ndarray:
        mi = self.mitsuba
        sensor = mi.load_dict(
            {
                "type": "perspective",
                "fov": camera.fov,
                "to_world": mi.ScalarTransform4f().look_at(
                    origin=camera.origin.tolist(), target=camera.target.tolist(), up=[0, 0, 1]
                ),
                "film": {
                    "type": "hdrfilm", "width": side, "height": side, "pixel_format": "rgba",
                    "rfilter": {"type": "box"},
                },
                "sampler": {"type": "multijitter", "sample_count": samples},
            }
        )  # fmt: skip
        image = mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), seed=seed)
        return np.array(image)

    def _labels(self, scene, portrait: Portrait) -> np.ndarray:
        """Class of the surface that each of the finer grid of rays meets."""
        side = self.size * MASK_RAYS
        image = self._trace(
            scene, portrait.camera, side, 1, 0,
            {"type": "aov", "aovs": "s:shape_index,p:prim_index"},
        )  # fmt: skip
        shape, triangle = np.rint(image[..., -2]).astype(int), np.rint(image[..., -1]).astype(int)
        labels = np.zeros((side, side), np.uint8)
        by_name = {part.name: part.labels for part in portrait.parts}
        for number, mesh in enumerate(scene.shapes(), start=1):
            classes = by_name.get(mesh.id())
            if classes is not None:
                hit = shape == number
                labels[hit] = classes[np.clip(triangle[hit], 0, len(classes) - 1)]
        return labels

    def _scene(self, portrait: Portrait, person: Identity, sitting: Sitting):
        mi = self.mitsuba
        scene: dict = {"type": "scene"} | self._lights(portrait, sitting)
        for part in [*portrait.parts, *self._placeholders(portrait)]:
            scene[part.name] = self._mesh(part)
        return mi.load_dict(scene)

    def _placeholders(self, portrait: Portrait) -> list[Part]:
        """One invisible triangle of each absent material.

        With the llvm variant Mitsuba compiles (for seconds) anew for each new set of materials.
        """
        used = {part.material for part in portrait.parts}
        behind = portrait.camera.origin + 3.0 * (portrait.camera.origin - portrait.camera.target)
        mesh = Mesh(behind + 1e-4 * np.eye(3), np.array([[0, 1, 2]]))
        return [
            Part(f"no_{name}", mesh, mesh.normals, np.zeros((3, 3)), name, np.zeros(1, int))
            for name in MATERIALS
            if name not in used
        ]

    def _mesh(self, part: Part):
        mi = self.mitsuba
        material = {
            "type": "twosided",
            "surface": {
                "type": "principled",
                "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
                **MATERIALS[part.material],
            },
        }
        properties = mi.Properties()
        properties["mesh_bsdf"] = mi.load_dict(material)
        vertices, faces = part.mesh.vertices, part.mesh.faces
        mesh = mi.Mesh(
            part.name, len(vertices), len(faces), has_vertex_normals=True, props=properties
        )
        mesh.add_attribute("vertex_color", 3, part.colour.astype(np.float32).ravel())
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = vertices.astype(np.float32).ravel()
        parameters["vertex_normals"] = part.normals.astype(np.float32).ravel()
        parameters["faces"] = faces.astype(np.uint32).ravel()
        parameters.update()
        mesh.set_id(part.name)
        return mesh

    def _lights(self, portrait: Portrait, sitting: Sitting) -> dict:
        """A large key light, a fill from all sides tinted by the room, and a light from behind."""
        warm = sitting.light_warmth
        key_colour = np.array([1.0 + 0.10 * warm, 1.0, 1.0 - 0.14 * warm])
        room = np.array(BACKGROUND[sitting.background_colour])
        room = 0.75 + 0.25 * room / room.mean()
        fill = (0.58 - 0.32 * sitting.contrast) * room
        key = 3.6 + 3.4 * sitting.contrast
        size = 1.6 * sitting.light_size
        eyes = portrait.eyes
        angle = 1.15 * sitting.light_side
        # Behind the camera: a panel before it would hide the face from the feature rays.
        place = eyes + KEY_DISTANCE * np.array(
            [np.sin(angle), -np.cos(angle), 0.9 * sitting.light_height]
        )
        behind = eyes + [-0.9 * np.sign(angle), 0.9, 0.7]
        return {
            "fill": {"type": "constant", "radiance": {"type": "rgb", "value": fill.tolist()}},
            "key": self._panel(place, eyes, size, key_colour * key / size**2),
            "rim": self._panel(behind, eyes, 0.3, np.full(3, 6.0 * sitting.contrast + 1.0)),
        }

    def _panel(self, place: np.ndarray, eyes: np.ndarray, size: float, radiance: np.ndarray):
        look = self.mitsuba.ScalarTransform4f().look_at(
            origin=place.tolist(), target=eyes.tolist(), up=[0, 0, 1]
        )
        return {
            "type": "rectangle",
            "to_world": look.scale(size),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": radiance.tolist()}},
        }


def _majority(votes: np.ndarray) -> np.ndarray:
    """The most frequent class of votes [h, w, k]; the smaller number wins a tie."""
    counts = np.stack([(votes == number).sum(-1) for number in range(len(CLASS))], axis=-1)
    return counts.argmax(-1).astype(np.uint8)


def _resize(labels: np.ndarray, side: int) -> np.ndarray:
    index = ((np.arange(side) + 0.5) * len(labels) / side).astype(int)
    return labels[np.ix_(index, index)]


def smooth(
    beauty: np.ndarray, features: np.ndarray, labels: np.ndarray, pixel: float
) -> np.ndarray:
    """The traced colours [h, w, 3] with their light smoothed along surfaces.

    `features`: albedo, normal and depth [h, w, 7]; `pixel`: size of a picture element in metres.
    """
    beauty, features = beauty.astype(np.float32), features.astype(np.float32)
    albedo = np.clip(features[..., :3], 0.02, 1.0)
    normal, depth = features[..., 3:6], features[..., 6]
    alpha = np.maximum(beauty[..., 3:4], 1e-3)
    light = np.minimum(beauty[..., :3] / alpha / albedo, LIGHT_LIMIT)
    skin = np.isin(labels, [CLASS[name] for name in ("skin", "lips", "brows", "beard")])
    groups = np.where(skin, CLASS["skin"], labels)
    groups[alpha[..., 0] <= 0.5] = 255  # mostly background: not a source of light
    scatter = np.where(skin[..., None], np.array(SCATTER) / pixel, 0.0)
    detailed = np.isin(labels, [CLASS[name] for name in ("eyes", "hair", "glasses")])
    for step, least in SMOOTHING:
        spread = np.hypot(least, scatter / step)
        spread[detailed] = 0.7 if step == 1 else 0.01
        spread[groups == CLASS["eyes"]] = 0.40 / step
        light = _smooth_pass(light, normal, depth, groups, spread.astype(np.float32), step)
    return light * albedo * beauty[..., 3:4]


def _smooth_pass(
    light: np.ndarray,
    normal: np.ndarray,
    depth: np.ndarray,
    groups: np.ndarray,
    spread: np.ndarray,
    step: int,
) -> np.ndarray:
    """One weighted mean over 5 x 5 elements `step` apart (an a-trous pass)."""
    total, weights = light.copy(), np.ones_like(light)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dx == 0 and dy == 0:
                continue
            shift = (dy * step, dx * step)
            other = np.roll(normal, shift, (0, 1))
            bend = np.maximum(np.einsum("hwk,hwk->hw", normal, other), 0.0) ** 4
            near = np.exp(-(((np.roll(depth, shift, (0, 1)) - depth) / DEPTH_STEP) ** 2))
            surface = (np.roll(groups, shift, (0, 1)) == groups) * bend * near
            weight = surface[..., None] * np.exp(-0.5 * (dx * dx + dy * dy) / spread**2)
            total += weight * np.roll(light, shift, (0, 1))
            weights += weight
    return total / weights


def exposure(person: Identity) -> float:
    """Dark skin is photographed a little longer."""
    return float(1.0 * (0.42 / max(np.mean(person.skin), 0.05)) ** 0.36)


def backdrop(side: int, sitting: Sitting) -> np.ndarray:
    """The background [side, side, 3], linear light."""
    rng = np.random.default_rng(sitting.seed + 9)
    colour = np.array(jitter(rng, BACKGROUND[sitting.background_colour], 0.15))
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    kind = sitting.backdrop
    shade = np.ones((side, side))
    if kind == "vertical":
        shade = 1.0 - 0.55 * rng.uniform(0.4, 1.0) * y * rng.choice([-1.0, 1.0])
    elif kind == "diagonal":
        turn = rng.uniform(0.0, 2.0 * np.pi)
        shade = 1.0 + 0.7 * rng.uniform(0.4, 1.0) * (np.cos(turn) * x + np.sin(turn) * y)
    elif kind == "halo":
        centre = rng.uniform(-0.15, 0.15, 2)
        shade = 1.25 - 1.1 * np.hypot(x - centre[0], y - centre[1])
    elif kind == "bokeh":
        for _ in range(int(rng.integers(8, 18))):
            cx, cy, r = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), rng.uniform(0.04, 0.14)
            disc = 1.0 / (1.0 + np.exp((np.hypot(x - cx, y - cy) - r) / 0.008))
            shade = shade + rng.uniform(0.08, 0.35) * disc
    elif kind == "wall":
        edge = rng.uniform(-0.4, 0.4)
        slope = rng.uniform(-0.15, 0.15)
        shade = 1.0 - 0.3 * (1.0 / (1.0 + np.exp(-(x - edge - slope * y) / 0.012)))
    side_light = 1.0 + 0.15 * sitting.light_side * x
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), 0.09 * side)
    shade = shade * side_light + 0.05 * noise / max(float(noise.std()), 1e-9)
    return np.clip(colour * np.clip(shade, 0.2, 1.8)[..., None], 0.0, 1.0)


def develop(linear: np.ndarray) -> np.ndarray:
    """Linear light -> 8-bit sRGB; highlights above 0.7 roll off instead of clipping."""
    knee = 0.7
    over = np.maximum(linear - knee, 0.0)
    rolled = knee + (1.0 - knee) * (1.0 - np.exp(-over / (1.0 - knee)))
    x = np.clip(np.where(linear > knee, rolled, linear), 0.0, 1.0)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-8) ** (1 / 2.4) - 0.055)
    return (encoded * 255.0 + 0.5).astype(np.uint8)
