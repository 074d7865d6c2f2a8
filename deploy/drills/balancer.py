"""haproxy and nginx before two replicas, as the drills run them: no request is ever tried twice."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path

from common import free_port

HAPROXY = """
global
  maxconn 500
  stats socket {folder}/admin.sock mode 600 level admin
defaults
  mode http
  timeout connect 1s
  timeout client 10s
  timeout server 10s
  retries 0
  no option redispatch
frontend front
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /health/ready
  timeout check 100ms
  default-server check inter 100ms fastinter 50ms fall 2 rise 2{more}
{servers}
"""

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  # A reload closes kept connections of clients while they may be asking.
  keepalive_timeout 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream replicas {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream off;
      proxy_pass http://replicas;
    }}
  }}
}}
"""


class Balancer:
    """Runs beside the drill, and ends with it."""

    def __init__(self, replicas, more=""):
        self.more = more
        self.ports = [replica.port for replica in replicas]
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        self.configuration = Path(self.folder.name) / "configuration"
        self.process = None

    def write(self, form, servers):
        self.configuration.write_text(form.format(folder=self.folder.name, port=self.port, servers=servers, more=self.more))

    def run(self, *command):
        self.process = subprocess.Popen([*command, str(self.configuration)], stderr=subprocess.DEVNULL)

    def end(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
        self.folder.cleanup()


class Haproxy(Balancer):
    """Asks each replica every 100 ms whether it is ready."""

    def start(self):
        servers = "\n".join(f"  server replica{number} 127.0.0.1:{port}" for number, port in enumerate(self.ports))
        self.write(HAPROXY, servers)
        self.run("haproxy", "-f")
        self.join(None)

    def states(self):
        """The state of each replica, as haproxy names it."""
        with socket.socket(socket.AF_UNIX) as admin:
            try:
                admin.connect(f"{self.folder.name}/admin.sock")
            except OSError:
                return []
            admin.sendall(b"show stat\n")
            told = b""
            while piece := admin.recv(65536):
                told += piece
        rows = [line.split(",") for line in told.decode().splitlines() if line]
        column = rows[0].index("status")
        return [row[column] for row in rows if row[1].startswith("replica")]

    def in_use(self):
        """Replicas that are asked; one that failed a check is until the next (`UP 1/2`)."""
        return sum(state.startswith("UP") for state in self.states())

    def leave(self, _number):
        """It finds out by itself."""

    def join(self, _number):
        while self.states() != ["UP"] * len(self.ports):
            time.sleep(0.02)


class Nginx(Balancer):
    """Has no checks of its own: who restarts a replica takes it out of the configuration before, and reloads."""

    def start(self):
        self.configure(set())
        self.run("nginx", "-c")
        time.sleep(0.5)

    def configure(self, out):
        down = {True: " down", False: ""}
        servers = " ".join(
            f"server 127.0.0.1:{port} max_fails=0{down[number in out]};" for number, port in enumerate(self.ports))
        self.write(NGINX, servers)

    def reload(self):
        self.process.send_signal(1)
        # The old worker answers what it has; the new one takes what comes.
        time.sleep(0.3)

    def leave(self, number):
        self.configure({number})
        self.reload()

    def join(self, _number):
        self.configure(set())
        self.reload()
