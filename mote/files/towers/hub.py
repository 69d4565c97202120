"""
Files of Hugging Face's hub: from the cache without a network, else downloaded; seconds without one.

    fetch(repository, names, option, instead)    the first of these files that there is
    fetch_beside(repository, names, ...)         all of these files that there are
    cached(repository, names, option)            the first of them in the cache
    why_no_answer(url)                           why a server cannot be reached; "" if it can

Copy alone: needs huggingface_hub, which open_clip brings. Not part of the paper.
"""
import os
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

ANSWER = 4.0              # seconds that a server may take before a download from it is given up


def fetch(repository: str, names: list[str], option: str, instead: str) -> Path:
    """The first of `names` that the cache has of a repository; with none there, one is downloaded.

    option: what asks for it, such as "--pretrained openai"; instead: what else a user can do. Both
    for the message: raises OSError, one line. The server is asked for an answer first, because
    without a network the hub's client tries for a minute.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    found = cached(repository, names, option)
    if found:
        return found

    url = hf_hub_url(repository, names[0])
    reason = why_no_answer(url)
    if not reason:
        try:
            for name in names:
                try:
                    return Path(hf_hub_download(repository, name))
                except LocalEntryNotFoundError:                  # it means: no network
                    raise
                except EntryNotFoundError:
                    reason = "the repository has no such file"
        except Exception as error:                               # whatever the hub's client raises
            reason = in_one_line(error)
    raise OSError(f"{option}: cannot fetch {' or '.join(names)} of {repository} "
                  f"from {urlsplit(url).netloc} ({reason}); {instead}")


def fetch_beside(repository: str, names: tuple[str, ...], option: str, instead: str) -> None:
    """Put these files of a repository into the cache, those that it has.

    The cache remembers what a repository does not have: nothing is asked twice. Without a network,
    what is cached is all that there is. Raises OSError, one line, for a download that breaks off:
    half of a model would be read as another one.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    unknown = [name for name in names if try_to_load_from_cache(repository, name) is None]
    if not unknown or why_no_answer(hf_hub_url(repository, unknown[0])):
        return
    for name in unknown:
        try:
            hf_hub_download(repository, name)
        except Exception as error:                               # whatever the hub's client raises
            no_such_file = isinstance(error, EntryNotFoundError)
            if no_such_file and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise OSError(f"{option}: cannot fetch {name} of {repository} "
                          f"({in_one_line(error)}); {instead}") from None


def cached(repository: str, names: list[str], option: str) -> Path | None:
    """The first of these files that the cache has; no server is asked.

    Raises ValueError, naming the option, for what is no name of a repository.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        try:
            file = try_to_load_from_cache(repository, name)
        except HFValidationError:
            raise ValueError(f"{option}: {repository!r} is not the name of a repository, which "
                             "has the form ORG/NAME") from None
        if isinstance(file, str):
            return Path(file)
    return None


def in_one_line(error: Exception) -> str:
    """An error's class and the beginning of its message, for one line of ours."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def why_no_answer(url: str) -> str:
    """Why the server of a URL cannot be reached, after at most ANSWER seconds; "" if it can.

    Any answer will do, also that it has no such page: the download says what is wrong then. So will
    a certificate that urllib does not know but the hub's client may. An answer that the server is
    out of order will not: the hub's client would try again and again. A proxy of the environment is
    used, as both clients do. In a thread, because looking up a name has no time limit.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, and it is not in the cache"
    reasons = [f"no answer in {ANSWER:.0f} s; on a slow network, try again"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=ANSWER).close()
            reasons.append("")
        except urllib.error.HTTPError as error:
            reasons.append(f"the server answers {error.code}" if error.code >= 500 else "")
        except Exception as error:                               # of sockets, proxies, certificates
            reason = getattr(error, "reason", error)
            reasons.append("" if isinstance(reason, ssl.SSLCertVerificationError) else str(reason))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER)
    return reasons[-1]
