"""The slips and contradictions of the lab report, as plain data; tests recompute whatever can be recomputed.

Places are the report's own headings ("II", "III A", "Table 1"). The report calls two sections "C"; they are named here
"III C" (ResNet) and "III C, second" (other methods).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Erratum:
    """One slip of the report. `chapter` is the prefix of the notebook in which it matters."""

    id: str
    chapter: str
    place: str
    says: str
    correct: str


ERRATA: tuple[Erratum, ...] = (
    # Problem 1: convolution and cross-entropy
    Erratum(
        "E1",
        "01",
        "I A",
        "“a 2x2 convolution kernel and a 5x5 input image”",
        "The matrices beside it show a 32×32 image with padding 1 and a 33×33 feature map: 32 + 2·1 − 2 + 1 = 33.",
    ),
    Erratum(
        "E2",
        "01",
        "I A",
        "“Two 2x2 convolution kernels … are used in the framework”",
        "The same section counts three convolutional layers; each has as many 2×2 kernels as output channels.",
    ),
    Erratum(
        "E3",
        "01",
        "I A",
        "z₁₁ = w₁₁x₁₁ + w₁₂w₁₂ + w₁₂w₁₂ + w₂₂x₂₂",
        "Two products of a weight with itself. Without padding z₁₁ = w₁₁x₁₁ + w₁₂x₁₂ + w₂₁x₂₁ + w₂₂x₂₂; with the "
        "padding of 1 that the matrices show, the other three pixels are zeros and z₁₁ = w₂₂x₁₁.",
    ),
    Erratum(
        "E4",
        "01",
        "I A",
        "The input is y in the formula and x in the matrix; the output is X, then z",
        "One letter each. The sum over the input channels c and the bias are missing: z(n) = b(n) + Σ over c, a, b of "
        "w(c, n, a, b) · x(c, i+a, j+b).",
    ),
    Erratum(
        "E5",
        "01",
        "I A",
        "“the convolution operation”: Σ ω(a, b) y(i+a, j+b)",
        "This is cross-correlation, which deep learning calls convolution; a convolution flips the kernel and reads "
        "y(i−a, j−b).",
    ),
    Erratum(
        "E6",
        "01",
        "I B",
        "LogSoftmax(x)_i = log(exp(y_k) / Σ_j exp(y_j))",
        "x and y are one vector, i and k one index: LogSoftmax(y)_k = y_k − log Σ_j exp(y_j).",
    ),
    Erratum(
        "E7",
        "01",
        "I B",
        "nll_loss: x are “typically the predicted probabilities”",
        "nll_loss takes log-probabilities; of probabilities it would return minus the mean of the true class's, in "
        "[−1, 0].",
    ),
    Erratum(
        "E8",
        "01",
        "I B",
        "−Σ from i = 0 to N, with N “the number of labels or classes”",
        "i = 0 … N has N + 1 terms. The sum runs over the N images of a batch, and PyTorch's default divides it by N "
        "(reduction='mean').",
    ),
    Erratum(
        "E9",
        "01",
        "I B",
        "“y(c) is 1 if data belongs to class i”",
        "y(c) is 1 if the image belongs to class c.",
    ),
    Erratum(
        "E10",
        "01",
        "I B",
        "L(y, t) = −Σ_i [log(e^y_k / Σ_j e^y_j) t]",
        "The sum is over i, but no i is in it, and k is bound by nothing. For logits y(i) and classes t(i) of N "
        "images: L = −(1/N) Σ_i log softmax(y(i)) at class t(i).",
    ),
    Erratum(
        "E11",
        "01",
        "I B",
        "L = −Σ y_c log(ŷ_c), “implemented in PyTorch” by F.cross_entropy",
        "log(ŷ_c) needs probabilities; F.cross_entropy takes logits and normalises them itself.",
    ),
    Erratum(
        "E12",
        "01",
        "I A",
        "input image × convolution kernel = feature map",
        "× between two matrices is their product, and 34×34 by 2×2 has none; meant is the sliding sum of the formula.",
    ),
    Erratum(
        "E13",
        "01",
        "I A",
        "“n represents the number of kernels”, “c represents the channel”",
        "Both are indices: n says which kernel, c which channel. x₁₃₂ is row 1, column 32 or row 13, column 2: a "
        "comma is missing.",
    ),
    Erratum(
        "E14",
        "01",
        "I B",
        "“the Euler exponent of the k-th y”; the number of classes is M, then N",
        "exp(y_k) is the exponential of y_k. One letter is enough for the number of classes.",
    ),
    Erratum(
        "E15",
        "01",
        "I B",
        "t is “one-hot encoded”, and (xt)_i is “the t-th element in the i-th input”",
        "It is one or the other: Σ_k x(i, k) t(i, k) with one-hot t, or the element x(i, t(i)) with a class number "
        "t(i), which is what nll_loss takes.",
    ),
    Erratum(
        "E16",
        "01",
        "I B",
        "nll_loss goes “with softmax activation in the output layer”",
        "With log_softmax. And a network trained with F.cross_entropy has no such layer: softmax would be applied "
        "twice.",
    ),
    Erratum(
        "E17",
        "01",
        "I B",
        "“the equation you provided is indeed the formula”",
        "No reader provided one; the formula meant is the report's own, and it is not PyTorch's (E8, E10).",
    ),
    # Problem 2: the baseline
    Erratum(
        "E18",
        "02",
        "II; III B; Table 1",
        "The baseline reaches 78% (7808/10000)",
        "Table 1 gives it 67 %. 7808 of 10,000 is also the 78.08 % of the fine-tuned model: section II's listing may "
        "be that model's.",
    ),
    Erratum(
        "E19",
        "02",
        "II, III A",
        "67% (678/1000), 83% (839/1000), …",
        "The class percentages are cut off, not rounded: 67.8 % is 68 %. It lowers 9 of the 20, whereas Table 1 "
        "rounds.",
    ),
    # Problem 3 C: ResNet's loss (E20 keeps its number: notebook 01 explains it too)
    Erratum(
        "E20",
        "04",
        "III C; appendix, ResNet code",
        "Losses from 0.0075 to 0.0975 at validation accuracies from 44 % to 69 %",
        "The code divides a sum of batch means by the number of images: the mean loss over the batch size. A mean "
        "cross-entropy at accuracy a is at least (1 − a) ln 2: at 69.21 %, at least 0.213.",
    ),
    # Problem 2, continued
    Erratum(
        "E21",
        "02",
        "II, III B, III C",
        "“the loss and accuracy confusion matrix”",
        "A confusion matrix counts images by true and predicted class; neither loss nor accuracy over epochs is one.",
    ),
    Erratum(
        "E22",
        "02",
        "II",
        "“a misclassified example, although the accuracy is not low”",
        "One example has no accuracy; its confidence is meant.",
    ),
    Erratum(
        "E23",
        "02",
        "II",
        "“The learning rate was initially set to 0.0001”, “training and validation metrics”",
        "No later rate is given, nor the optimiser, the network's widths, or which images were for validation.",
    ),
    # Problem 3 A and B: the two optimizations
    Erratum(
        "E24",
        "03",
        "III; III A",
        "“achieve the accuracy demonstrated”, “maintaining the current accuracy”",
        "From section II's 78 % the first optimization falls to 68 % and ResNet to 66.53 %; fine-tuning equals it to "
        "the image.",
    ),
    Erratum(
        "E25",
        "03",
        "III A",
        "“internal covariate drift”",
        "Internal covariate shift (Ioffe and Szegedy, arXiv:1502.03167). Whether batch norm works by reducing it is "
        "disputed (Santurkar et al., arXiv:1805.11604).",
    ),
    Erratum(
        "E26",
        "03",
        "III A",
        "“batch processing has a regularization effect”",
        "Batch normalisation has: each image's features depend on the rest of its batch.",
    ),
    Erratum(
        "E27",
        "03",
        "III A",
        "A lower burden “by decreasing the convolution kernel size”, yet “parameters increased to 75186”",
        "The framework's kernels are 2×2; the only smaller one is 1×1, which sees no neighbours. Fewer operations "
        "with more parameters are possible, but the report counts none; they are counted here.",
    ),
    Erratum(
        "E28",
        "03",
        "III A",
        "75186 parameters have an “estimated total size” of 0.07 MB",
        "75,186 float32 parameters are 300,744 bytes, 0.29 MiB. 0.07 MiB is one byte a parameter.",
    ),
    Erratum(
        "E29",
        "03",
        "III A",
        "“The overall precision on the test set is 68%”",
        "The accuracy is. Precision is the share of right answers among those that name a class.",
    ),
    Erratum(
        "E30",
        "03",
        "III A",
        "68 % is “a slight improvement compared to the baseline”",
        "Against section II's 7808 it loses 991 images (9.91 points), and the loss rises from 0.649 to 0.913. Against "
        "Table 1's 67 %, which may be anything from 66.5 to 67.5, it gains 0.7 to 1.7 points: about the ±1.3 that the "
        "95 % interval of a difference of two independent samples of 10,000 reaches.",
    ),
    Erratum(
        "E31",
        "03",
        "III A",
        "Cat and bird have “slightly improved, although the initial … accuracy remains higher”",
        "It cannot be both. Section II has cat 592 and bird 671 of 1000, III A has 512 and 527: they fell by 8.0 and "
        "14.4 points.",
    ),
    Erratum(
        "E32",
        "03",
        "III A",
        "“hardly any progress in the automobile, truck, and ship categories”",
        "They fall by 9.1, 9.4 and 8.5 points against section II, as every class does.",
    ),
    Erratum(
        "E33",
        "03",
        "III B",
        "78.08 % “by modifying the convolution kernel's size and adjusting the learning rate to 0.003”",
        "The code also changes the optimiser to Adam, the schedule and the dense layers; a rate of 0.003 in Adam is "
        "no adjusted 0.0001 of SGD with momentum. Epochs and batch size are not given.",
    ),
    Erratum(
        "E34",
        "03",
        "III B; appendix",
        "scheduler = lr_scheduler.StepLR(…)",
        "No code that is shown calls scheduler.step(): as printed, the rate stays at 0.003.",
    ),
    Erratum(
        "E35",
        "03",
        "III B; appendix",
        "self.fcl in III B, self.fc1 in the appendix",
        "One is a misreading of the other; the layers are the same, the names in a saved state are not.",
    ),
    Erratum(
        "E36",
        "03",
        "III B; appendix",
        "if train_on_gpu: model.cuda()",
        "train_on_gpu is not defined in this listing: NameError.",
    ),
    # Problem 3 C: ResNet
    Erratum(
        "E37",
        "04",
        "III C; appendix",
        "The log of one training, printed twice",
        "The transcripts differ: loss in epochs 2 (0.0539, 0.0339), 4 (0.0259, 0.0239), 9 (0.0975, 0.0075); accuracy "
        "in epochs 2, 3, 4 (63.35, 61.35), 5, 6, 10 (67.09, 67.99). The code prints one.",
    ),
    Erratum(
        "E38",
        "04",
        "Appendix, ResNet code",
        "# predicted = torch.max(output.data, 1)",
        "Commented out, so that predicted is never assigned: NameError in the first validation. Without the # it "
        "would be a pair; _, predicted = torch.max(output, 1) is meant. As it stands this code printed no log.",
    ),
    Erratum(
        "E39",
        "04",
        "III; III C",
        "ResNet is to “reduce the model size”",
        "ResNet-18 has 11,181,642 parameters here: 149 times the 75,186 of the first optimization, 21 times the "
        "541,094 of the fine-tuned network. The CIFAR-10 ResNet-20 of [1] has 0.27 million.",
    ),
    Erratum(
        "E40",
        "04",
        "III C",
        "“This article's model improved the ResNet model by reducing its size”",
        "The code only exchanges the last layer, 1000 outputs for 10: 11,689,512 parameters become 11,181,642, 4.3 % "
        "fewer.",
    ),
    Erratum(
        "E41",
        "04",
        "III C",
        "Residual connections use input features directly, “thereby decreasing the number of parameters”",
        "A skip connection removes no layer. An identity has no parameters and adds none; ResNet-18's three 1×1 "
        "shortcuts add 173,824. What skips buy is trainable depth.",
    ),
    Erratum(
        "E42",
        "04",
        "III C; Table 1",
        "“a notably high accuracy rate”, “improve the accuracy performance”",
        "66.53 %, pre-trained, is below the fine-tuned network's 78.08 % and the first optimization's 68.17 %.",
    ),
    Erratum(
        "E43",
        "04",
        "III C; appendix, ResNet code",
        "“with the average value subtracted from all points”",
        "No code shown does it (datasets and transforms are imported, the loaders undefined). ImageNet weights expect "
        "ImageNet's mean subtracted and the result divided by its deviation.",
    ),
    Erratum(
        "E44",
        "04",
        "Appendix, ResNet code",
        "models.resnet18(pretrained=True)",
        "Deprecated since torchvision 0.13: weights=ResNet18_Weights.IMAGENET1K_V1.",
    ),
    Erratum(
        "E45",
        "04",
        "III C",
        "ResNet18 was chosen “given the characteristics of the CIFAR-10 dataset”",
        "Its stem is made for 224×224 images: a 32×32 image is 8×8 after it and 1×1 in the last stage.",
    ),
    Erratum(
        "E46",
        "04",
        "III C",
        "“input characteristic quantity”, “output characteristic quantity”; step (4) says one sentence three times",
        "The numbers of input and output features; once is enough.",
    ),
    # The comparison with other methods, and the conclusion
    Erratum(
        "E47",
        "06",
        "III",
        "Two sections C",
        "“C. Other improved methods” is section D.",
    ),
    Erratum(
        "E48",
        "06",
        "Table 1; III C, second",
        "DNN 90 %, SoftMax 85 %",
        "Two rows for one model: they are its training and its validation accuracy. The other rows are test "
        "accuracies.",
    ),
    Erratum(
        "E49",
        "06",
        "Table 1",
        "ResNet 67 %, TensorFlow 90 %",
        "66.53 and 89.59 rounded up; the listings cut off (E19).",
    ),
    Erratum(
        "E50",
        "06",
        "III C, second",
        "[3]: training and validation loss “reduced to 0.06 and 0.05” at accuracies 0.9 and 0.85",
        "A wrong answer leaves the true class a probability of at most 1/2, a loss of at least ln 2. So the mean "
        "cross-entropies are at least 0.066 and 0.101, however the accuracies were rounded; and the lower loss is at "
        "the lower accuracy.",
    ),
    Erratum(
        "E51",
        "06",
        "III C, second",
        "[2]: “state-of-the-art accuracy” of 89.59 %",
        "The report's own [1] has 93.57 % on CIFAR-10 in 2016.",
    ),
    Erratum(
        "E52",
        "06",
        "Conclusion",
        "“the latest TensorFlow, DNN, and SoftMax classic classification networks”",
        "TensorFlow is a library and softmax a function; neither is a network, and the latest are not the classic "
        "ones.",
    ),
    Erratum(
        "E53",
        "06",
        "Conclusion",
        "“our network's classification performance is clearly demonstrated”",
        "By single runs without an interval, on three different splits, with two numbers for the baseline; and the "
        "methods of others are above all of the report's own.",
    ),
    Erratum(
        "E54",
        "06",
        "III C, second",
        "“Methods used to improve performance.”",
        "A sentence without a verb; which methods they are is not said.",
    ),
)
