// Objects on standard input as a JSON list; on standard output what the schemas of cert-manager and Istio say of each.
import * as certManager from '@kubernetes-models/cert-manager/cert-manager.io/v1';
import * as security from '@kubernetes-models/istio/security.istio.io/v1';
import * as networking from '@kubernetes-models/istio/networking.istio.io/v1';

const known = new Map(
  [...Object.values(certManager), ...Object.values(security), ...Object.values(networking)]
    .filter((model) => model.kind)
    .map((model) => [`${model.apiVersion}/${model.kind}`, model]),
);
let text = '';
for await (const chunk of process.stdin) text += chunk;
const answers = JSON.parse(text).map((object) => {
  const Model = known.get(`${object.apiVersion}/${object.kind}`);
  if (!Model) return 'there is no schema for it';
  try {
    new Model(object).validate();
    return '';
  } catch (error) {
    return String(error);
  }
});
process.stdout.write(JSON.stringify(answers));
