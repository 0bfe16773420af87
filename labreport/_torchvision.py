"""The one place through which torchvision is imported: `from labreport._torchvision import torchvision`.

Some torch builds cannot load torchvision's compiled extension, although nothing here needs it. `import torchvision`
then stops with "operator torchvision::nms does not exist", because it describes two operators that the extension would
have declared. Declaring them (without an implementation) lets the import go on; calling them still fails.
"""

import importlib
from types import ModuleType

import torch

_UNDECLARED = "operator torchvision::nms does not exist"
_SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _import_torchvision() -> ModuleType:
    """torchvision, imported plainly, or once more after the operators that stopped it have been declared."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _UNDECLARED not in str(error):
            raise
    for name, schema in _SCHEMAS.items():
        torch.library.define(name, schema)  # torch keeps what it defines this way for the life of the process
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()
