"""A server is replaced by another on the same socket while clients go on: nobody is refused, nobody notices."""

import json
import signal
import threading

import httpx2

WINDOW = 64


def test_a_server_is_replaced_without_a_lost_request(start_server, write_release, tmp_path):
    load = write_release(tmp_path / "one", 1, 2.0)
    old = start_server()
    old.go_live(load)
    tensor = {"name": "watts", "datatype": "FP32", "shape": [1, 1, WINDOW], "data": [0.0] * WINDOW}
    content, url = json.dumps({"inputs": [tensor]}), f"{old.http.base_url}/v2/models/nilm/infer"
    stop, answered, wrong = threading.Event(), {"kept": 0, "new": 0}, []

    def ask(kind: str) -> None:
        client = httpx2.Client(trust_env=False, timeout=20)
        while not stop.is_set():
            if kind == "new":
                client.close()
                client = httpx2.Client(trust_env=False, timeout=20)
            try:
                answer = client.post(url, content=content)
                if answer.status_code != 200:
                    wrong.append(answer.text)
            except httpx2.HTTPError as error:
                wrong.append(repr(error))
            answered[kind] += 1
        client.close()

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in ("kept", "kept", "new", "new")]
    for thread in threads:
        thread.start()
    new = start_server("--hold", listening=old.socket)
    new.go_live(load)
    assert new.ask({"op": "serve"}) == {"ok": True}
    before = dict(answered)
    old.process.send_signal(signal.SIGTERM)
    assert old.process.wait(15) == -signal.SIGTERM
    between = dict(answered)
    while answered["kept"] < between["kept"] + 20 or answered["new"] < between["new"] + 20:
        assert all(thread.is_alive() for thread in threads)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert before["kept"] > 0
    assert new.ask({"op": "figures"})["models"]["home/nilm"]["samples"] >= 20
