"""Certificates made on the spot: authorities, servers and clients, good and bad."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


def spiffe_id(agent):
    return f"spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa"


def _now():
    return datetime.datetime.now(datetime.timezone.utc)


class Issued:
    """A certificate and its key, as PEM."""

    def __init__(self, certificate, key):
        self.certificate = certificate.public_bytes(PEM)
        self.key = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.not_after = certificate.not_valid_after_utc


class Authority:
    """A CA."""

    def __init__(self, certificate, key):
        self._certificate = certificate
        self._key = key
        self.certificate = certificate.public_bytes(PEM)

    @classmethod
    def new(cls, name="another CA"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - datetime.timedelta(hours=1))
            .not_valid_after(_now() + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def of_folder(cls, folder):
        """The CA of a dev folder."""
        certificate = x509.load_pem_x509_certificate((Path(folder) / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((Path(folder) / "ca.key").read_bytes(), password=None)
        return cls(certificate, key)

    def client(self, uris=(), dns=(), common_name=None, valid_from=-3600, valid_until=3600):
        """A client's certificate. Times in seconds from now."""
        names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(name) for name in dns]
        return self._leaf(names, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, valid_from, valid_until)

    def agent(self, name, **more):
        """A client's certificate with an agent's SPIFFE ID."""
        return self.client(uris=[spiffe_id(name)], **more)

    def server(self, valid_until=3600):
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self._leaf(names, "localhost", ExtendedKeyUsageOID.SERVER_AUTH, -3600, valid_until)

    def _leaf(self, names, common_name, usage, valid_from, valid_until):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() + datetime.timedelta(seconds=valid_from))
            .not_valid_after(_now() + datetime.timedelta(seconds=valid_until))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        return Issued(builder.sign(self._key, hashes.SHA256()), key)


def _usage(**set_bits):
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(bits | set_bits))
