"""Identities of patients, health professionals and organisations: numbers checked, pseudonyms made, identities sealed."""
