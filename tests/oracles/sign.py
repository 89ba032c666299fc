#!/usr/bin/env python3
"""Random requests, and how the vendors' SDKs sign them: one JSON object a line.

    python3 -m venv venv
    venv/bin/pip install botocore alibabacloud-tea-openapi tencentcloud-sdk-python-common
    venv/bin/python tests/oracles/sign.py 1000 1 > tests/data/signing/sdks.jsonl

The first argument is how many, the second the seed. Where an SDK takes less than HTTP allows (keys of a query once only, for instance),
the requests are such as it takes; what remains is covered by the published vectors.
"""

import datetime
import hashlib
import json
import random
import sys
from urllib.parse import quote

import botocore.auth
from alibabacloud_tea_openapi.utils import Utils as Alibaba
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from darabonba.request import DaraRequest
from tencentcloud.common.abstract_client import AbstractClient
from tencentcloud.common.http.request import RequestInternal

count, dice = int(sys.argv[1]), random.Random(int(sys.argv[2]))
LETTERS = "abcXYZ0189-_.~ !$&'()*+,;=:@/?#%<>|üß日本語🙂\"\\"


def word(low, high, letters=LETTERS):
    return "".join(dice.choice(letters) for _ in range(dice.randint(low, high)))


def plain(low, high):
    return word(low, high, "abcdefXYZ0189-_")


def base():
    method = dice.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"])
    body = word(1, 60) if method in ("POST", "PUT", "PATCH") and dice.random() < 0.8 else None
    types = ["application/json", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"]
    return {
        "method": method,
        "segments": [word(1, 8, LETTERS.replace("/", "")) for _ in range(dice.randint(0, 4))],
        "host": f"{plain(3, 9).lower()}.example.com",
        "content_type": dice.choice(types) if body is not None else None,
        "body": body,
        "sign_body": dice.random() < 0.7,
        "now": dice.randint(1_500_000_000, 1_900_000_000),
        "id": "AK" + plain(10, 16),
        "secret": word(16, 40, LETTERS.replace("🙂", "")),
        "token": plain(20, 60) if dice.random() < 0.3 else None,
        "region": None,
        "service": None,
    }


def written(text):
    """Percent-encodes, sometimes more than there is need, and with small letters."""
    out = quote(text, safe="-_.~")
    at = dice.randrange(len(out)) if out and dice.random() < 0.3 else None
    if at is not None and "%" not in out[max(0, at - 2) : at + 1]:
        out = out[:at] + "%{:02x}".format(ord(out[at])) + out[at + 1 :]
    return out


def sigv4():
    one = base()
    one["scheme"], one["region"] = "sigv4", dice.choice(["eu-west-1", "us-east-1", "cn-north-1"])
    one["service"] = dice.choice(["lambda", "execute-api"])
    segments = [s for s in one.pop("segments") if s not in (".", "..")]
    one["path"] = "/" + "/".join(quote(s, safe="-_.~") for s in segments)
    pairs = [(word(1, 6), word(0, 10)) for _ in range(dice.randint(0, 5))]
    pairs += [(pairs[0][0], word(0, 5))] if pairs and dice.random() < 0.3 else []
    one["query"] = "&".join(f"{written(k)}={written(v)}" for k, v in pairs) or None
    url = "https://" + one["host"] + one["path"]
    if pairs:
        url += "?" + "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
    headers = {"content-type": one["content_type"]} if one["content_type"] else {}
    body = (one["body"] or "").encode()
    if one["body"] is not None and not one["sign_body"]:
        headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    else:
        headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    request = AWSRequest(method=one["method"], url=url, headers=headers, data=body)
    moment = datetime.datetime.fromtimestamp(one["now"], datetime.timezone.utc).replace(tzinfo=None)
    botocore.auth.get_current_datetime = lambda *_, **__: moment
    keys = Credentials(one["id"], one["secret"], one["token"])
    botocore.auth.SigV4Auth(keys, one["service"], one["region"]).add_auth(request)
    one["authorization"] = request.headers["Authorization"]
    return one


def acs3():
    one = base()
    one["scheme"] = "acs3"
    segments = one.pop("segments")
    one["path"] = "/" + "/".join(written(s) for s in segments)
    # The SDK writes keys as they are.
    query = {plain(1, 6): word(0, 10) for _ in range(dice.randint(0, 5))}
    one["query"] = "&".join(f"{k}={written(v)}" for k, v in query.items()) or None
    request = DaraRequest()
    request.method, request.query = one["method"], query
    request.pathname = Alibaba.get_encode_path("/" + "/".join(s.replace("/", "%2F") for s in segments))
    moment = datetime.datetime.fromtimestamp(one["now"], datetime.timezone.utc)
    request.headers = {"x-acs-date": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
    if one["token"]:
        request.headers["x-acs-security-token"] = one["token"]
    payload = ""
    if one["sign_body"]:
        payload = hashlib.sha256((one["body"] or "").encode()).hexdigest()
        request.headers["x-acs-content-sha256"] = payload
        request.headers["host"] = one["host"]
        if one["content_type"]:
            request.headers["content-type"] = one["content_type"]
    one["authorization"] = Alibaba.get_authorization(request, "ACS3-HMAC-SHA256", payload, one["id"], one["secret"])
    return one


def tc3():
    one = base()
    one["scheme"], one["service"] = "tc3", dice.choice(["scf", "cvm"])
    one["path"] = "/" + "/".join(written(s) for s in one.pop("segments"))
    one["content_type"] = one["content_type"] or dice.choice([None, "application/json"])
    pairs = [(word(1, 6), word(0, 10)) for _ in range(dice.randint(0, 4))]
    # Of a GET the SDK signs the query, of all others the body.
    is_get = one["method"] == "GET"
    one["query"] = ("&".join(f"{written(k)}={written(v)}" for k, v in pairs) or None) if is_get else None
    if is_get:
        one["sign_body"] = True
    request = RequestInternal(one["host"], one["method"], one["path"])
    request.header = {"Content-Type": one["content_type"] or "application/octet-stream", "Host": one["host"]}
    request.data = (one["query"] or "") if is_get else (one["body"] or "")
    if one["body"] is not None and not one["sign_body"]:
        request.header["X-TC-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    day = datetime.datetime.fromtimestamp(one["now"], datetime.timezone.utc).strftime("%Y-%m-%d")
    request.header["X-TC-Timestamp"] = str(one["now"])
    client = AbstractClient.__new__(AbstractClient)
    signature = client._get_tc3_signature({}, request, day, one["service"], one["secret"])
    scope = f"{one['id']}/{day}/{one['service']}/tc3_request"
    one["authorization"] = f"TC3-HMAC-SHA256 Credential={scope}, SignedHeaders=content-type;host, Signature={signature}"
    return one


for number in range(count):
    print(json.dumps([sigv4, acs3, tc3][number % 3](), ensure_ascii=False))
