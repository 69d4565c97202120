"""
Temporal feature modulation: at test time, trust time as much as the test classes resemble the training classes.

    rho = exp(-(1 - M(y_t y_f^T)) / gamma) ,    z = e + rho t                                        (paper Eq. 11)

e is the mean of a view's frame features, t of its temporal features. y_f are the K class embeddings nearest to e among
the classes of fine-tuning, y_t those among the test classes; M, "sequential maximum and average pooling", takes the
best match of each test neighbour and averages over the test neighbours. The same classes on both sides give rho = 1;
far classes give rho near 0, and the video embedding falls back to CLIP's. Evaluation only; pure functions.

Dimension key   B clips (views)   D embedding   N test classes   M fine-tuning classes   K nearest classes
Copy alone: needs torch only. Same numbers as the authors' code: tests/test_golden.py.
"""
import torch
from torch import Tensor

NEIGHBOURS, GAMMA = 5, 0.05                                      # K and gamma, Section 4.1


def class_similarity(x_BD: Tensor, test_ND: Tensor, finetune_MD: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """M(y_t y_f^T) of Eq. 11: how alike are the classes that a clip is near to, in both sets? -> (B,), a cosine <= 1.

    x may have any length, since only the order of its cosines counts; class embeddings have unit length. k is lowered
    to the number of classes where there are fewer. Float32, also under autocast. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"the number of neighbours must be at least 1, got {k}")
    with torch.autocast(x_BD.device.type, enabled=False):
        x_BD, test_ND, finetune_MD = x_BD.float(), test_ND.float(), finetune_MD.float()
        near_test_BKD = test_ND[(x_BD @ test_ND.T).topk(min(k, len(test_ND))).indices]
        near_finetune_BKD = finetune_MD[(x_BD @ finetune_MD.T).topk(min(k, len(finetune_MD))).indices]
        best_BK = (near_test_BKD @ near_finetune_BKD.mT).amax(dim=-1)     # of each test neighbour: first the maximum,
        return best_BK.mean(dim=-1).clamp(max=1)                          # then the mean; the other order differs


def modulation(similarity: Tensor, gamma: float = GAMMA) -> Tensor:
    """rho of Eq. 11 from the similarity, same shape, in (0, 1]. Raises ValueError unless gamma > 0.

    >>> modulation(torch.tensor([1.0, 0.95, 0.9]))                        # 1, 1/e, 1/e^2
    tensor([1.0000, 0.3679, 0.1353])
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return torch.exp(-(1 - similarity) / gamma)
