# As our commands do, so that each process of a test begins a tenth of a second sooner.
import ari_app.process.plain_structlog  # noqa: F401
