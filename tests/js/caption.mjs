// A reference loop in another language: an ONNX artifact and resized pictures go in, token ids and scores come out, by the README's
// "Contract" alone. Greedy search, one picture at a time; no prompt, no words (tokenizer.json has them), no resizing: pictures are RGB PNG
// files of the artifact's size, as golden captions carry them, since no two libraries resize alike.
//
//   node caption.mjs ARTIFACT [PICTURE.png...] [--threads N]
//
// With pictures: one JSON line each (image, token_ids, score). Without: those of the artifact's golden captions, compared with the ids that
// it gave where it was packaged; exit code 1 where they differ.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as ort from 'onnxruntime-node'
import { PNG } from 'pngjs'

const MAX_LENGTH = 20 // tokens, the first one included

/** Pixels f32[1,3,S,S] of an RGB PNG: (value * rescale - mean) / std, rounded to float32 at each step as the checkpoint's processor does. */
async function pixelsOf(path, spec) {
  const { width, height, data } = PNG.sync.read(await readFile(path)) // RGBA, row by row
  if (width !== spec.width_px || height !== spec.height_px) {
    throw new Error(`${path}: is ${width}x${height}; resize it to ${spec.width_px}x${spec.height_px} first`)
  }
  const plane = width * height
  const pixels = new Float32Array(3 * plane)
  for (let channel = 0; channel < 3; channel++) {
    const [mean, std] = [Math.fround(spec.mean[channel]), Math.fround(spec.std[channel])]
    for (let i = 0; i < plane; i++) {
      const rescaled = Math.fround(data[4 * i + channel] * spec.rescale)
      pixels[channel * plane + i] = Math.fround(rescaled - mean) / std
    }
  }
  return new ort.Tensor('float32', pixels, [1, 3, height, width])
}

/** The artifact's manifest and its two graphs. */
async function open(folder, threads) {
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
  if (manifest.runtime !== 'ort' || manifest.contract !== 'split/1') {
    throw new Error(`${folder}: is for ${manifest.runtime} with contract ${manifest.contract}, this loop for ort with split/1`)
  }
  const session = (role) => {
    const [file] = Object.entries(manifest.files).find(([, entry]) => entry.role === role)
    return ort.InferenceSession.create(join(folder, file), { intraOpNumThreads: threads, enableMemPattern: false, logSeverityLevel: 3 })
  }
  return { manifest, encoder: await session('encoder'), decoder: await session('decoder') }
}

/** The most likely caption, token by token: all ids from bos_id to eos_id, and their log-probability per generated token. */
async function greedy({ manifest, encoder, decoder }, pixels, maxLength = MAX_LENGTH) {
  const { bos_id: bos, eos_id: eos } = manifest.tokenizer
  const { text_layers: layers, text_heads: heads, text_width: width } = manifest.model
  const cross = await encoder.run({ pixels }) // cross_key_0, cross_value_0, ...: once a picture
  let past = {}
  for (let layer = 0; layer < layers; layer++) {
    for (const kind of ['key', 'value']) {
      past[`past_${kind}_${layer}`] = new ort.Tensor('float32', new Float32Array(0), [1, heads, 0, width / heads])
    }
  }
  const positions = new ort.Tensor('int64', [0n], [1]) // of the one new token
  const ids = [bos]
  let total = 0
  while (ids.length < maxLength && (ids.length === 1 || ids.at(-1) !== eos)) {
    const token_ids = new ort.Tensor('int64', [BigInt(ids.at(-1))], [1, 1])
    const { logits, ...present } = await decoder.run({ token_ids, positions, ...cross, ...past })
    past = Object.fromEntries(Object.entries(present).map(([name, value]) => [name.replace('present_', 'past_'), value]))
    const [best, logProbability] = likeliest(logits.data) // f32[1,1,V]
    ids.push(best)
    total += logProbability
  }
  return { token_ids: ids, score: total / (ids.length - 1) }
}

/** Index of the largest logit, the first of equals, and its natural-log probability. */
function likeliest(logits) {
  let best = 0
  for (let i = 1; i < logits.length; i++) {
    if (logits[i] > logits[best]) best = i
  }
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - logits[best]), 0)
  return [best, -Math.log(sum)]
}

/** Whether ids are those of a golden caption: 'same ids', a tie of two words that were as likely, or what differs. */
function verdict(ids, { token_ids: expected, margins_nat }, tieNat) {
  if (ids.join() === expected.join()) return 'same ids'
  const at = expected.findIndex((id, i) => id !== ids[i]) // of two captions, none is the start of the other
  return margins_nat[at - 1] < tieNat ? `a tie at token ${at}` : `${ids} differ from ${expected}`
}

const { positionals, values } = parseArgs({ allowPositionals: true, options: { threads: { type: 'string', default: '1' } } })
const [folder, ...pictures] = positionals
if (!folder) {
  console.error('usage: node caption.mjs ARTIFACT [PICTURE.png...] [--threads N]')
  process.exit(2)
}
try {
  const artifact = await open(folder, Number(values.threads))
  const caption = async (path, most) => greedy(artifact, await pixelsOf(path, artifact.manifest.image), most)
  for (const image of pictures) {
    console.log(JSON.stringify({ image, ...(await caption(image)) }))
  }
  if (!pictures.length) {
    const golden = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8'))
    for (const { resized, captions } of golden.pictures) {
      const { token_ids } = await caption(join(folder, resized), golden.max_length)
      const said = verdict(token_ids, captions.find(({ beams }) => beams === 1), golden.tie_nat)
      console.log(`${resized}: ${said}`)
      if (said.includes('differ')) process.exitCode = 1
    }
  }
} catch (error) {
  console.error(`Error: ${error.message}`)
  process.exitCode = 1
}
