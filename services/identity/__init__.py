"""Who a patient, a person of health care and an organisation are: numbers checked, pseudonyms made, identities sealed."""
