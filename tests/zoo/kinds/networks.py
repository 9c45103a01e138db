"""torchvision's networks by tiny configurations."""

from torch import nn
from torchvision import models as tv

from ..kind import CLASSES, Group, Truth, real

GROUP = Group("Networks of torchvision")


SHORT = ("DenseNet, memory_efficient", "MobileNetV3", "RegNet", "VisionTransformer")


def add(name, make, size=32, **options):
    GROUP.add(name, make, real(3, size, size), **{"heavy": name not in SHORT, **options})


def _resnet(block, layers, **options):
    def make():
        model = tv.ResNet(block, layers, num_classes=CLASSES, **options)
        return model

    return make


def _mobilenet_v3():
    from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

    setting = [
        InvertedResidualConfig(8, 3, 8, 8, True, "RE", 2, 1, 1.0),
        InvertedResidualConfig(8, 3, 16, 8, True, "HS", 1, 1, 1.0),
    ]
    return MobileNetV3(setting, 16, num_classes=CLASSES, dropout=0.0)


def _mobilenet_v2():
    return tv.MobileNetV2(CLASSES, 0.25, [[2, 8, 1, 1], [2, 8, 1, 2]], dropout=0.0)


def _efficientnet():
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    return EfficientNet([MBConvConfig(2, 3, 1, 8, 8, 1)], 0.0, 0.0, CLASSES, last_channel=16)


def _efficientnet_depth():
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    return EfficientNet([MBConvConfig(2, 3, 1, 8, 8, 2)], 0.2, 0.3, CLASSES, last_channel=16)


def _convnext(depth=0.0):
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt(
        [CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], depth, num_classes=CLASSES
    )


def _swin(depth=0.0):
    return tv.SwinTransformer(
        [4, 4], 8, [1, 1], [2, 2], [2, 2], stochastic_depth_prob=depth, num_classes=CLASSES
    )


def _regnet():
    from torchvision.models.regnet import BlockParams, RegNet

    parameters = BlockParams(
        depths=[1],
        widths=[8],
        group_widths=[4],
        bottleneck_multipliers=[1.0],
        strides=[2],
        se_ratio=0.25,
    )
    return RegNet(parameters, CLASSES, stem_width=8)


def _vgg():
    from torchvision.models.vgg import make_layers

    # Its own class makes a head of 120 million weights.
    head = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(True), nn.Linear(8, CLASSES))
    return nn.Sequential(make_layers([4, "M", 6, "M"], batch_norm=True), head)


add(
    "ResNet",
    _resnet(tv.resnet.BasicBlock, [1, 1, 1, 1], width_per_group=64),
    heavy=True,
    truth=Truth.graph,
    smooth=False,
)
add("DenseNet", lambda: tv.DenseNet(4, (2, 2), 8, 2, 0.0, CLASSES))
add(
    "DenseNet, memory_efficient",
    lambda: tv.DenseNet(4, (2, 2), 8, 2, 0.0, CLASSES, memory_efficient=True),
    plain=lambda: tv.DenseNet(4, (2, 2), 8, 2, 0.0, CLASSES),
    traces=None,
)
add("MobileNetV2", _mobilenet_v2)
add(
    "MobileNetV3",
    _mobilenet_v3,
    truth=Truth.differences,
)
add("EfficientNet", _efficientnet)
add(
    "EfficientNet with stochastic depth, dropout", _efficientnet_depth, truth=Truth.own, traces=None
)
add("ConvNeXt", _convnext)
add("ConvNeXt with stochastic depth", lambda: _convnext(0.5), truth=Truth.own, traces=None)
add("Swin", _swin, 16)
add("Swin with stochastic depth", lambda: _swin(0.5), 16, truth=Truth.own, traces=None)
add("VisionTransformer", lambda: tv.VisionTransformer(8, 4, 1, 2, 8, 12, num_classes=CLASSES), 8)
add("RegNet", _regnet)
add("VGG, BatchNorm", _vgg, 8)
add("ShuffleNetV2", lambda: tv.ShuffleNetV2([1, 1, 1], [4, 8, 8, 8, 16], CLASSES))
add("SqueezeNet", lambda: tv.SqueezeNet("1_1", CLASSES, dropout=0.0), heavy=True)
add(
    "MNASNet",
    lambda: tv.MNASNet(0.1, CLASSES, dropout=0.0),
    heavy=True,
    tolerance=1e-6,  # chaotic on four rows: 1e-14 in each part moves torch's own weights by 1
    truth=Truth.graph,
    smooth=False,
)
add(
    "GoogLeNet, no auxiliary outputs",
    lambda: tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False, dropout=0.0),
    48,
    heavy=True,
    traces=None,
    truth=Truth.graph,
    smooth=False,
)
