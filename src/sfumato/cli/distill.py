"""`sfumato distill`: train a student by a recipe."""

from sfumato.cli.options import Program
from sfumato.cli.train import RunOptions, carry_out

program = Program()


@program.add(
    examples="""sfumato distill recipes/icons/fast.toml --seconds 540       (again: resumes)
sfumato distill my.toml --base path/to/model --data my/pictures"""
)
def distill(options: RunOptions) -> None:
    """As `sfumato train`, for recipes of students of few steps only."""
    carry_out(options, students=True)
