"""Stage 9: models × engines × KV caches × loads -> tables, plots and a recommendation."""

from deploytk.bench.compare import Comparison, compare
from deploytk.bench.compare_html import write_comparison
from deploytk.bench.matrix import Matrix, make_matrix, read_matrix
from deploytk.bench.recommend import Recommendation, Row, recommend
from deploytk.bench.run import BenchOptions, run_bench
from deploytk.bench.slo import parse_slo
from deploytk.bench.table import Result, best_report, read_result

__all__ = [
    "BenchOptions",
    "Comparison",
    "Matrix",
    "Recommendation",
    "Result",
    "Row",
    "best_report",
    "compare",
    "make_matrix",
    "parse_slo",
    "read_matrix",
    "read_result",
    "recommend",
    "run_bench",
    "write_comparison",
]
