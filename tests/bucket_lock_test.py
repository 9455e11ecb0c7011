"""One program at a time has a folder of a bucket, whatever becomes of the others."""

import contextlib
import threading
import time

import pytest

from sr_jax import bucket
from sr_jax.errors import Busy
from sr_jax.files import as_path, locked


@pytest.fixture(scope="module", autouse=True)
def server(storage):
  """Nothing here goes without it."""


def test_a_lock_is_kept_by_its_renewals_waited_for_and_taken_from_the_dead(monkeypatch):
  monkeypatch.setattr(bucket, "LEASE", 0.8)
  folder, order = as_path("gs://bucket/locked"), []

  def wait():
    with locked(folder, wait=True):
      order.append("waited")

  waiting = threading.Thread(target=wait)
  with locked(folder):
    waiting.start()
    with pytest.raises(Busy), locked(folder):
      pass
    time.sleep(1.5)  # longer than a lock stays that nobody renews
    order.append("held")
  waiting.join()
  assert order == ["held", "waited"]
  (folder / ".lock").write_text("of a program that was killed")
  with locked(folder):
    assert "of a program that was killed" not in (folder / ".lock").read_text()
  assert not folder.exists()
  with locked(folder):
    (folder / ".lock").write_text("of somebody who took it")
  assert (folder / ".lock").exists()


def test_only_one_of_two_programs_that_come_at_once_has_the_lock(monkeypatch):
  monkeypatch.setattr(bucket, "LEASE", 4)
  lock = as_path("gs://bucket/raced") / ".lock"
  first = bucket._acquire(lock, "first", wait=False)
  # The second one looked before the first one wrote.
  seen = iter([bucket.NONE, first, first, "of its renewal"])
  monkeypatch.setattr(bucket, "_read", lambda lock: (next(seen), ""))
  with pytest.raises(Busy):
    bucket._acquire(lock, "second", wait=False)
  assert lock.read_text() == "first"


def test_only_one_of_two_programs_takes_the_lock_of_a_dead_one(monkeypatch):
  monkeypatch.setattr(bucket, "LEASE", 0.4)
  lock, both, read = as_path("gs://bucket/dead") / ".lock", threading.Barrier(2), bucket._read
  lock.write_text("of a program that was killed")
  dead, taken = read(lock)[0], []
  write = bucket._write

  def write_together(*arguments):
    if arguments[2] == dead:
      both.wait(30)
    return write(*arguments)

  monkeypatch.setattr(bucket, "_write", write_together)

  def take(name):
    with contextlib.suppress(Busy):
      bucket._acquire(lock, name, wait=False)
      taken.append(name)

  threads = [threading.Thread(target=take, args=(name,)) for name in ("first", "second")]
  for thread in threads:
    thread.start()
  time.sleep(2)
  lock.write_text("renewed")  # so that the other one gives up
  for thread in threads:
    thread.join(30)
  assert len(taken) == 1


def test_a_lock_whose_answer_was_lost_is_still_held():
  with locked(as_path("gs://bucket/answer")) as renew:
    lock = as_path("gs://bucket/answer") / ".lock"
    lock.write_text(lock.read_text())
    renew()
  assert not lock.exists()
