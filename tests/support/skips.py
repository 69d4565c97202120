"""
MOTE_NO_SKIPS=1: a test that skips itself fails. For .ci/run, which installs all that tests need: a skip is a hole.

Real videos are not to be had by installing: tests that ask for $MOTE_TEST_VIDEOS may skip.
"""
import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return without_skips(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):                       # importorskip at the head of a file
    report = yield
    return without_skips(report)


def without_skips(report):
    expected_failure = hasattr(report, "wasxfail")               # pytest calls these skipped too
    if os.environ.get("MOTE_NO_SKIPS") and report.skipped and not expected_failure:
        reason = str(report.longrepr)
        if "MOTE_TEST_VIDEOS" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped, which MOTE_NO_SKIPS forbids: {reason}"
    return report
