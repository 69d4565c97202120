"""
Temporal feature modulation: the less the test classes are like the training classes, the less the
temporal feature counts.

    rho = exp(-(1 - M(y_t y_f^T)) / gamma) ,    z = e + rho t                       (paper Eq. 11)

e is the mean of a view's frame features, t of its temporal features. y_f are the K class embeddings
nearest to e among the classes of fine-tuning, y_t those among the test classes. M(.), "sequential
maximum and average pooling", takes the best match of each test neighbour and averages over them (it
is not the number M below). The same classes on both sides give rho = 1. Far classes give rho near
0, and the video embedding falls back to e. Evaluation only; pure functions.

Dimension key   B clips (views)   D embedding   N test classes   M fine-tuning classes   K nearest
Copy alone: needs torch only. Same numbers as the authors' code: tests/test_golden.py.
"""
import torch
from torch import Tensor

NEIGHBOURS = 5                                                   # K, Section 4.1
GAMMA = 0.05                                                     # gamma, Section 4.1


def nearest_classes(x_BD: Tensor, classes_ND: Tensor, k: int) -> Tensor:
    """The k class embeddings that are nearest to each clip -> (B, K, D); all where there are fewer.

    x may have any length, since only the order of its cosines counts.
    """
    k = min(k, len(classes_ND))
    nearest_BK = (x_BD @ classes_ND.T).topk(k).indices
    return classes_ND[nearest_BK]


def class_similarity(
    x_BD: Tensor, test_ND: Tensor, finetune_MD: Tensor, k: int = NEIGHBOURS
) -> Tensor:
    """M(y_t y_f^T) of Eq. 11: are a clip's nearest test classes like its nearest training classes?

    -> (B,), a cosine <= 1. x, the clip, may have any length; class embeddings have unit length.
    Float32, also under autocast. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"the number of neighbours must be at least 1, got {k}")
    with torch.autocast(x_BD.device.type, enabled=False):
        x_BD = x_BD.float()
        y_test_BKD = nearest_classes(x_BD, test_ND.float(), k)
        y_finetune_BKD = nearest_classes(x_BD, finetune_MD.float(), k)

        # First the maximum, then the mean over test neighbours: the other order is another number.
        cosine_BKK = y_test_BKD @ y_finetune_BKD.mT
        best_BK = cosine_BKK.amax(dim=-1)
        return best_BK.mean(dim=-1).clamp(max=1)                 # rounding may exceed 1


def modulation(similarity: Tensor, gamma: float = GAMMA) -> Tensor:
    """rho of Eq. 11 from the similarity, same shape, in (0, 1]. Raises ValueError unless gamma > 0.

    >>> modulation(torch.tensor([1.0, 0.95, 0.9]))               # 1, 1/e, 1/e^2
    tensor([1.0000, 0.3679, 0.1353])
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return torch.exp(-(1 - similarity) / gamma)
