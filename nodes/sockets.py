"""The socket types that the nodes of this pack exchange."""

from comfy_api.latest import io

__all__ = [
    "Conditions",
    "FaceLocation",
    "FaceRecognizer",
    "LandmarkNetwork",
    "LpipsNetwork",
    "Method",
    "OnnxNetwork",
    "OpenClip",
    "Region",
    "Segmenter",
    "Settings",
]

# A tuple of guidance.Condition in the order in which they were connected; never mutated.
Conditions = io.Custom("ZMAGIC_CONDITIONS")

# A host.hooks.HostSettings; frozen.
Settings = io.Custom("ZMAGIC_SETTINGS")

# A dict: fields of GuidanceSettings that replace those of a preset; never mutated.
Method = io.Custom("ZMAGIC_METHOD")

# A host.openclip.OpenClip: image tower, text tower and their preprocessing.
OpenClip = io.Custom("ZMAGIC_OPENCLIP")

# A guidance.faces.networks.FaceRecognizer: embeds aligned face crops.
FaceRecognizer = io.Custom("ZMAGIC_FACE_RECOGNIZER")

# A guidance.faces.networks.LandmarkNetwork: points of a face crop.
LandmarkNetwork = io.Custom("ZMAGIC_LANDMARK_NETWORK")

# A guidance.faces.location.FaceLocator: where in a picture the face is.
FaceLocation = io.Custom("ZMAGIC_FACE_LOCATION")

# A guidance.live_regions.LiveRegion: a region that follows the picture.
Region = io.Custom("ZMAGIC_REGION")

# A host.image_networks.ImageNetwork whose first output is a map of class scores.
Segmenter = io.Custom("ZMAGIC_SEGMENTER")

# A host.image_networks.ImageNetwork.
OnnxNetwork = io.Custom("ZMAGIC_ONNX_NETWORK")

# A host.networks.Network of a guidance.networks.lpips.Lpips: pictures to weighted unit maps.
LpipsNetwork = io.Custom("ZMAGIC_LPIPS_NETWORK")
