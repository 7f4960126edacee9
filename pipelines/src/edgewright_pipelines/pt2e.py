"""torchao's quantization of traced networks, imported without the warnings that it gives about its own source."""

import logging
import warnings

_chatty = logging.getLogger("torch.utils._pytree")
_before = _chatty.level
_chatty.setLevel(logging.ERROR)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchao.quantization.pt2e import (  # type: ignore[import-untyped]
        FusedMovingAvgObsFakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        disable_observer,
        move_exported_model_to_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-untyped]
        convert_pt2e,
        prepare_qat_pt2e,
    )
    from torchao.quantization.pt2e.quantizer import (  # type: ignore[import-untyped]
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
        SharedQuantizationSpec,
    )
_chatty.setLevel(_before)

__all__ = [
    "FusedMovingAvgObsFakeQuantize",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "Quantizer",
    "SharedQuantizationSpec",
    "convert_pt2e",
    "disable_observer",
    "move_exported_model_to_eval",
    "prepare_qat_pt2e",
]
