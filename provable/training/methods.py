"""The training methods on record, for the catalogue: one record per published system of this folder.

Theory note: training.md. How each is called is in its own file.
"""

from provable.method import Method

_COST = "a whole training run"

METHODS = (
    Method(
        name="c-sgd", summary="filters of a cluster are trained into one point, then trimmed exactly",
        granularity="channel", when="during training", criterion="redundancy", data="labelled", recovery="none",
        guarantee="exact", reference="X. Ding, G. Ding, Guo, Han, CVPR 2019, arXiv 1904.03837", cost=_COST,
        use="provable.training.CSGD",
    ),
    Method(
        name="gsm", summary="weights outside the globally most important receive decay only", granularity="weight",
        when="during training", criterion="sensitivity", data="labelled", recovery="joint training",
        guarantee="sparsity", reference="Ding et al., NeurIPS 2019, arXiv 1909.12778", cost=_COST,
        use="provable.training.GSM",
    ),
    Method(
        name="spp", summary="groups are masked with probabilities that rise and fall by their norms",
        granularity="vector", when="during training", criterion="probabilistic", data="labelled",
        recovery="fine-tune", guarantee="sparsity", reference="Wang et al., BMVC 2018, arXiv 1709.06994", cost=_COST,
        use="provable.training.SPP",
    ),
    Method(
        name="dpf", summary="gradients of the pruned model feed back into the dense one", granularity="weight",
        when="during training", criterion="magnitude", data="labelled", recovery="joint training",
        guarantee="sparsity", reference="Lin, Stich, Barba, Dmitriev, Jaggi, ICLR 2020, arXiv 2006.07253", cost=_COST,
        use="provable.training.DPF",
    ),
    Method(
        name="dpp", summary="exactly k of n weights, kernels or filters by relaxed Gumbel top-k", granularity="any",
        when="during training", criterion="probabilistic", data="labelled", recovery="joint training",
        guarantee="sparsity", reference="Gonzalez-Carabarin et al., IEEE TNNLS 2021, arXiv 2105.12686", cost=_COST,
        use="provable.training.DPP",
    ),
    Method(
        name="djpq", summary="gates of channels and learned bit widths trade against each other",
        granularity="channel and bits", when="during training", criterion="information bottleneck", data="labelled",
        recovery="joint training", guarantee="none", reference="Y. Wang, Lu, Blankevoort, ECCV 2020, arXiv 2007.10463",
        cost=_COST, use="provable.training.DJPQ",
    ),
    Method(
        name="adaptive", summary="channels and residual blocks leave in learned proportions",
        granularity="channel and layer", when="during training", criterion="learned gates and regularisers",
        data="labelled", recovery="fine-tune", guarantee="none",
        reference="design of this project, after an abstract whose paper was not identified", cost=_COST,
        use="provable.training.Adaptive",
    ),
    Method(
        name="privacy-admm", summary="pattern and connectivity pruning on synthetic inputs", granularity="kernel",
        when="after training", criterion="learned gates and regularisers", data="synthetic", recovery="fine-tune",
        guarantee="sparsity", reference="Gong et al. 2020, arXiv 2003.06513", cost="ADMM per layer",
        use="provable.training.PrivateADMM",
    ),
)  # fmt: skip
