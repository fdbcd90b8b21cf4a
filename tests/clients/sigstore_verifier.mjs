// sigstore-js reads a bundle that deploytk signed with a key: node verify.mjs BUNDLE KEY.pub
import { readFileSync } from "node:fs";
import { createPublicKey } from "node:crypto";
import { bundleFromJSON } from "@sigstore/bundle";
import { Verifier, toSignedEntity } from "@sigstore/verify";

const [place, key] = process.argv.slice(2);
const bundle = bundleFromJSON(JSON.parse(readFileSync(place, "utf-8")));
const publicKey = { publicKey: createPublicKey(readFileSync(key, "utf-8")), validFor: () => true };
const trusted = {
  certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [], publicKey: () => publicKey,
};
const options = { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 };
new Verifier(trusted, options).verify(toSignedEntity(bundle));
const envelope = bundle.content.dsseEnvelope;
const statement = JSON.parse(envelope.payload.toString());
console.log(JSON.stringify({ type: envelope.payloadType, predicateType: statement.predicateType, subject: statement.subject }));
