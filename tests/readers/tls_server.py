"""Serves TLS with certificates that are good, expired, or for another name: tls_server.py DIRECTORY [PORT]

What is said under a good certificate is passed on to the port of this machine, and so are the answers.
Writes ca.pem, other-ca.pem and each certificate with its key (good.pem, expired.pem, other-name.pem) into the directory, then a line
with the three ports to ports.txt.
"""

import datetime
import ipaddress
import os
import select
import socket
import ssl
import sys
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

directory = sys.argv[1]
target = int(sys.argv[2]) if len(sys.argv) > 2 else None
os.makedirs(directory, exist_ok=True)
now = datetime.datetime.now(datetime.timezone.utc)
day = datetime.timedelta(days=1)


def write(name, *parts):
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
    return path


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(text, file):
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateBuilder().subject_name(name(text)).issuer_name(name(text)).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - 90 * day).not_valid_after(now + 90 * day)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    write(file, made.public_bytes(serialization.Encoding.PEM))
    return key


def pass_on(secure, server):
    """Both directions in one thread: a TLS connection is not used by two at once."""
    with server:
        while True:
            ready = [secure] if secure.pending() else select.select([secure, server], [], [])[0]
            for side, other in ((secure, server), (server, secure)):
                if side in ready:
                    words = side.recv(1 << 16)
                    if not words:
                        return
                    other.sendall(words)


def serve(file, authority_key, begin, end, host):
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateBuilder().subject_name(name("server")).issuer_name(name("authority"))
    made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(begin).not_valid_after(end)
    made = made.add_extension(x509.SubjectAlternativeName([host]), critical=False).sign(authority_key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write(file, pem, private))
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(client):
        try:
            with context.wrap_socket(client, server_side=True) as secure:
                if target:
                    pass_on(secure, socket.create_connection(("127.0.0.1", target)))
        except OSError:
            pass

    def answer():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    threading.Thread(target=answer, daemon=True).start()
    return listener.getsockname()[1]


ours = authority("authority", "ca.pem")
authority("other authority", "other-ca.pem")
here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
ports = [
    serve("good.pem", ours, now - day, now + day, here),
    serve("expired.pem", ours, now - 30 * day, now - day, here),
    serve("other-name.pem", ours, now - day, now + day, x509.DNSName("elsewhere.example")),
]
write("ports.txt.new", " ".join(map(str, ports)).encode())
os.rename(os.path.join(directory, "ports.txt.new"), os.path.join(directory, "ports.txt"))
sys.stdin.read()
