"""GSM8K as Wen et al. 2025 use it: it comes as a folder only, whose answers are read as GSM8K's."""

from jelicit.data.named_sets import NamedSet
from jelicit.data.sets.gsm8k import with_answer

SET = NamedSet(name="gsm8k_icm", title="GSM8K (ICM)", meaning=with_answer)
