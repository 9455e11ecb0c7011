"""Google Cloud Storage on this machine: it prints its port, and has the bucket "bucket".

This is gcp-storage-emulator, and what it lacks of the real one: `ifGenerationMatch` and the generation of
what is read. Of the buckets in REFUSALS every request is refused.
"""

import io
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.storage import Storage

REFUSALS = {
  "forbidden": (403, "somebody does not have storage.objects.list access to the bucket."),
  "unknown-caller": (401, "Anonymous caller does not have storage.objects.list access to the bucket."),
}


class Router(server.Router):
  def handle(self, method):
    handler = self._request_handler
    body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.rfile = io.BytesIO(body)
    bucket, name, query = _parts(handler.path)
    if not name and (found := re.search(rb'"name": ?("[^"]*")', body)):
      name = json.loads(found[1])
    wanted = query.get("ifGenerationMatch")
    if bucket in REFUSALS:
      code, message = REFUSALS[bucket]
    elif wanted and wanted[0] != _generation(handler, bucket, name):
      code, message = 412, "At least one of the pre-conditions you specified did not hold."
    else:
      super().handle(method)
      return
    response = server.Response(handler)
    response.status = server.HTTPStatus(code)
    response.json({"error": {"code": code, "message": message}})
    response.close()


class Response(server.Response):
  def close(self):
    bucket, name, query = _parts(self._handler.path)
    if query.get("alt") == ["media"]:
      self["x-goog-generation"] = _generation(self._handler, bucket, name)
    super().close()


def _parts(address: str) -> tuple[str, str, dict[str, list[str]]]:
  """The bucket, the name of the object and the query of a request's address; "" for what it lacks."""
  url = urlsplit(address)
  query = parse_qs(url.query)
  found = re.search(r"/b/([^/]+)(?:/o(?:/(.+))?)?$", url.path)
  bucket, name = (found[1], found[2] or "") if found else ("", "")
  return bucket, unquote(name) or query.get("name", [""])[0], query


def _generation(handler: server.RequestHandler, bucket: str, name: str) -> str:
  """Of an object; "0" if there is none."""
  try:
    return handler.storage.get_file_obj(bucket, name)["generation"]
  except NotFound:
    return "0"


if __name__ == "__main__":
  server.Router, server.Response = Router, Response
  # At every change it would write the index of all objects, which nothing reads again.
  Storage._write_config_to_file = lambda self: None
  emulator = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
  emulator.start()
  print(emulator._api._httpd.server_port, flush=True)
