"""Evidence: all that travels from the probes upwards. A new kind in one of these files needs no entry."""

from vqdoctor.core.evidence.base import *  # noqa: F403
from vqdoctor.core.evidence.codebook import *  # noqa: F403
from vqdoctor.core.evidence.course import *  # noqa: F403
from vqdoctor.core.evidence.dynamics import *  # noqa: F403
from vqdoctor.core.evidence.file import *  # noqa: F403
from vqdoctor.core.evidence.gradient import *  # noqa: F403
from vqdoctor.core.evidence.implicit import *  # noqa: F403
from vqdoctor.core.evidence.layer import *  # noqa: F403
from vqdoctor.core.evidence.sequence import *  # noqa: F403
from vqdoctor.core.evidence.shown import *  # noqa: F403
from vqdoctor.core.evidence.state import *  # noqa: F403
from vqdoctor.core.evidence.task import *  # noqa: F403
from vqdoctor.core.evidence.use import *  # noqa: F403
