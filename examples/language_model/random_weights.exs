defmodule RandomWeights do
  @moduledoc """
  Weights that follow from a configuration and a seed: the same that `random_weights.py`
  makes, bit for bit, so that models can be compared without keeping them.
  """

  import Bitwise

  @doc """
  The names and shapes of a model's weights, in order.
  """
  def shapes(json) do
    hidden = json["hidden_size"]
    size = json["head_dim"] || div(hidden, json["num_attention_heads"])
    vocabulary = json["vocab_size"]

    for(at <- 0..(json["num_hidden_layers"] - 1), do: layer(json, "model.layers.#{at}.", size))
    |> Enum.concat()
    |> Enum.concat([{"model.embed_tokens.weight", {vocabulary, hidden}}])
    |> Enum.concat([{"model.norm.weight", {hidden}}])
    |> Enum.concat(
      if json["tie_word_embeddings"], do: [], else: [{"lm_head.weight", {vocabulary, hidden}}]
    )
    |> Enum.sort()
  end

  defp layer(json, prefix, size) do
    hidden = json["hidden_size"]
    inner = json["intermediate_size"]
    heads = json["num_attention_heads"] * size
    groups = json["num_key_value_heads"] * size

    norms =
      if json["model_type"] == "qwen3",
        do: [{"self_attn.q_norm", {size}}, {"self_attn.k_norm", {size}}],
        else: []

    biases =
      if json["model_type"] == "qwen2",
        do: for({name, size} <- [q: heads, k: groups, v: groups], do: {"#{name}_proj", {size}}),
        else: []

    matrices = [
      {"self_attn.q_proj", {heads, hidden}},
      {"self_attn.k_proj", {groups, hidden}},
      {"self_attn.v_proj", {groups, hidden}},
      {"self_attn.o_proj", {hidden, heads}},
      {"mlp.gate_proj", {inner, hidden}},
      {"mlp.up_proj", {inner, hidden}},
      {"mlp.down_proj", {hidden, inner}},
      {"input_layernorm", {hidden}},
      {"post_attention_layernorm", {hidden}}
    ]

    for({name, shape} <- norms ++ matrices, do: {prefix <> name <> ".weight", shape}) ++
      for {name, shape} <- biases, do: {prefix <> "self_attn." <> name <> ".bias", shape}
  end

  @doc """
  The weights of a configuration, as a map.
  """
  def make(json, seed) do
    for {{name, shape}, at} <- Enum.with_index(shapes(json)),
        into: %{},
        do: {name, tensor(shape, seed * 1_000 + at)}
  end

  # Norms are near 1, and matrices such that products of ones keep their size.
  defp tensor({_size} = shape, seed), do: shape |> hashed(seed) |> Nx.multiply(0.5) |> Nx.add(1.0)

  defp tensor({_outputs, inputs} = shape, seed),
    do: shape |> hashed(seed) |> Nx.multiply(2.0 ** -floor(:math.log2(inputs) / 2) * 4)

  # From -0.5 to 0.5, multiples of 2 to the power of -24.
  defp hashed(shape, seed) do
    shape
    |> Nx.iota(type: :u32)
    |> Nx.add(Nx.tensor(band(seed * 0x9E3779B9, 0xFFFFFFFF), type: :u32))
    |> mix(16, 0x7FEB352D)
    |> mix(15, 0x846CA68B)
    |> then(&Nx.bitwise_xor(&1, Nx.right_shift(&1, 16)))
    |> Nx.right_shift(8)
    |> Nx.as_type(:f32)
    |> Nx.multiply(2.0 ** -24)
    |> Nx.subtract(0.5)
  end

  defp mix(x, shift, factor) do
    x
    |> Nx.bitwise_xor(Nx.right_shift(x, shift))
    |> Nx.multiply(Nx.tensor(factor, type: :u32))
  end
end
