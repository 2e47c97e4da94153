"""Sections and keys of cfg files: those of Darknet (2018), of AlexeyAB's fork, and of SpursLipu's PyTorch code.

Keys that only training reads are known and ignored. The sources are `src/parser.c` of the two Darknet repositories and
`utils/parse_config.py` of the third.
"""

from __future__ import annotations

from collections.abc import Mapping

NETWORK = ("net", "network")
ALIASES: Mapping[str, str] = {
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}

# What Darknet reads from every section, whatever its layer: training alone uses them.
_EVERYWHERE = "truth onlyforward stopbackward learning_rate smooth dont_update burnin_update train_only_bn"
_CONVOLUTION = (
    "filters size stride stride_x stride_y pad padding groups dilation activation batch_normalize stream wait_stream "
    "grad_centr angle dot binary xnor bin_output flipped share_index antialiasing assisted_excitation sway rotate "
    "stretch stretch_sway coordconv reverse cbn dontload dontsave dontloadscales numload"
)
_BOXES = (
    "classes coords num anchors jitter rescore thresh random softmax bias_match absolute coord_scale object_scale "
    "noobject_scale mask_scale class_scale max map log sqrt background classfix tree focal_loss"
)
_YOLO = (
    "mask anchors classes num jitter ignore_thresh truth_thresh random max map scale_x_y new_coords iou_loss "
    "iou_normalizer obj_normalizer cls_normalizer delta_normalizer iou_thresh iou_thresh_kind nms_kind beta_nms "
    "resize focal_loss label_smooth_eps objectness_smooth max_delta counters_per_class show_details "
    "track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm embedding_layer uc_normalizer"
)
_DETECTION = (
    "classes coords num side rescore softmax sqrt jitter object_scale noobject_scale class_scale coord_scale forced "
    "max random reorg"
)


def _keys(own: str) -> frozenset[str]:
    return frozenset(f"{own} {_EVERYWHERE}".split())


KEYS: Mapping[str, frozenset[str]] = {
    "convolutional": _keys(_CONVOLUTION),
    "depthwise": _keys(_CONVOLUTION),
    "connected": _keys("output activation batch_normalize"),
    "local": _keys("filters size stride pad activation"),
    "maxpool": _keys("size stride stride_x stride_y padding maxpool_depth antialiasing out_channels"),
    "avgpool": _keys(""),
    "upsample": _keys("stride scale"),
    "reorg": _keys("stride reverse flatten extra"),
    "reorg3d": _keys("stride reverse"),
    "route": _keys("layers groups group_id stream wait_stream"),
    "shortcut": _keys("from activation alpha beta weights_type weights_normalization"),
    "scale_channels": _keys("from activation scale_wh"),
    "sam": _keys("from activation"),
    "se": _keys("reduction filters"),
    "activation": _keys("activation"),
    "dropout": _keys("probability dropblock dropblock_size_abs dropblock_size_rel"),
    "crop": _keys("crop_width crop_height flip angle saturation exposure shift noadjust"),
    "yolo": _keys(_YOLO),
    "region": _keys(_BOXES),
    "detection": _keys(_DETECTION),
    "softmax": _keys("groups temperature tree spatial noloss"),
    "cost": _keys("type scale ratio noobj thresh"),
}

# Keys that change what a layer computes in a way that is not built here: key -> the one value allowed.
REFUSED: Mapping[str, int] = {
    "antialiasing": 0,
    "bin_output": 0,
    "binary": 0,
    "cbn": 0,
    "coordconv": 0,
    "dontload": 0,
    "dontloadscales": 0,
    "dontsave": 0,
    "flatten": 0,
    "flipped": 0,
    "maxpool_depth": 0,
    "numload": 0,
    "rotate": 0,
    "share_index": -1,
    "stretch": 0,
    "stretch_sway": 0,
    "sway": 0,
    "xnor": 0,
}
