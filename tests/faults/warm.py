"""What the process that others are forked from has loaded and parsed, so that none of them does it again."""

import torch
import torch._dynamo  # which every optimiser imports: it takes longer than the tiny training

import labreport.document.report
import labreport.lab.session  # noqa: F401
from labreport.facts.recipes import RECIPES
from labreport.training.identity import code_of

torch.set_num_threads(1)  # no pool of threads, which would not be there in a fork
for _name in ("baseline", "fine_tuned"):
    code_of(RECIPES[_name])
