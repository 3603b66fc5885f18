defmodule Decoder do
  @moduledoc """
  A decoder of the families Llama, Qwen2 and Qwen3, for `Mlx.Generation`.

  The configuration is a folder's `config.json`, the parameters are its weights under
  their names, dense or quantized.
  """

  alias Mlx.Fast

  @families ~w(llama qwen2 qwen3)

  @doc """
  The configuration and the parameters of a model's folder. Takes the options of
  `Mlx.Weights.load/2`.
  """
  def read(folder, opts \\ []) do
    config = folder |> Mlx.Weights.load_config() |> config()
    needed? = &(not (config.tied and String.starts_with?(&1, "lm_head.")))
    {config, Mlx.Weights.load(folder, [only: needed?] ++ opts)}
  end

  @doc """
  The parameters with all matrices quantized, the embeddings included. Takes the options of
  `Mlx.Quantization.quantize/2`.
  """
  def quantize(params, opts) do
    Map.new(params, fn
      {name, %{shape: {_, _}} = weight} -> {name, Mlx.Quantization.quantize(weight, opts)}
      other -> other
    end)
  end

  @doc """
  The generator of a configuration and parameters.
  """
  def generator(config, params, opts \\ []) do
    opts = Keyword.put_new(opts, :max_length, config.max_length)
    Mlx.Generation.new(forward(config), params, cache(config, params), opts)
  end

  @doc """
  What matters here of a `config.json`.
  """
  def config(%{"model_type" => family} = json) when family in @families do
    heads = json["num_attention_heads"]

    %{
      layers: json["num_hidden_layers"],
      heads: heads,
      groups: json["num_key_value_heads"] || heads,
      size: json["head_dim"] || div(json["hidden_size"], heads),
      eps: json["rms_norm_eps"],
      tied: Map.get(json, "tie_word_embeddings", family == "llama"),
      max_length: json["max_position_embeddings"] || 0x7FFFFFFF,
      rope: rope(json)
    }
  end

  def config(json), do: raise(ArgumentError, "no model of this kind: #{json["model_type"]}")

  # The angles from one position to the next.
  defp rope(json) do
    settings = json["rope_scaling"] || json["rope_parameters"] || %{}
    base = json["rope_theta"] || settings["rope_theta"] || 10_000

    case settings["rope_type"] || settings["type"] || "default" do
      "default" ->
        [base: base]

      "linear" ->
        [base: base, scale: 1 / settings["factor"]]

      "llama3" ->
        size = json["head_dim"] || div(json["hidden_size"], json["num_attention_heads"])
        angles = for i <- 0..(div(size, 2) - 1), do: llama3(base ** (-2 * i / size), settings)
        [frequencies: angles]

      other ->
        raise ArgumentError, "no rope scaling of this kind: #{other}"
    end
  end

  # Long waves are stretched, short ones are not, and those between in part.
  defp llama3(angle, %{"factor" => factor} = settings) do
    [low, high] = [settings["low_freq_factor"], settings["high_freq_factor"]]
    turns = settings["original_max_position_embeddings"] * angle / (2 * :math.pi())
    part = ((turns - low) / (high - low)) |> max(0.0) |> min(1.0)
    angle * (part + (1 - part) / factor)
  end

  @doc """
  What `Mlx.Generation.new/4` takes as the cache.
  """
  def cache(config, params) do
    {layers, groups, size} = {config.layers, config.groups, config.size}
    type = type(params["model.embed_tokens.weight"])

    fn batch, length ->
      shape = {batch, groups, length, size}

      for _ <- 1..layers do
        {Nx.broadcast(Nx.tensor(0, type: type), shape),
         Nx.broadcast(Nx.tensor(0, type: type), shape)}
      end
      |> List.to_tuple()
    end
  end

  defp type(%{type: type}), do: type

  @doc """
  What `Mlx.Generation.new/4` takes as the model.
  """
  def forward(config) do
    fn params, tokens, cache, position -> forward(params, tokens, cache, position, config) end
  end

  defp forward(params, tokens, cache, position, config) do
    sees = sees(position, cache)
    x = Nx.take(params["model.embed_tokens.weight"], tokens)

    {cache, x} =
      cache
      |> Tuple.to_list()
      |> Enum.with_index()
      |> Enum.map_reduce(x, fn {cache, at}, x ->
        layer(x, cache, weights(params, "model.layers.#{at}."), position, sees, config)
      end)

    x = Fast.rms_norm(x, params["model.norm.weight"], eps: config.eps)
    head = if config.tied, do: "model.embed_tokens", else: "lm_head"
    {linear(x, params, head), List.to_tuple(cache)}
  end

  defp weights(params, prefix) do
    for {name, weight} <- params,
        String.starts_with?(name, prefix),
        into: %{},
        do: {String.replace_prefix(name, prefix, ""), weight}
  end

  # Single tokens see what is up to them, parts of the prompt in order. One mask serves all layers.
  defp sees(position, _cache) when is_integer(position), do: [causal: true, position: position]

  defp sees(position, cache) do
    {keys, _values} = elem(cache, 0)
    places = Nx.iota({1, 1, 1, Nx.axis_size(keys, 2)}, type: :s32)
    last = if position.shape == {}, do: position, else: Nx.reshape(position, {:auto, 1, 1, 1})
    [mask: Nx.less_equal(places, last)]
  end

  defp layer(x, cache, weights, position, sees, config) do
    normed = Fast.rms_norm(x, weights["input_layernorm.weight"], eps: config.eps)
    {attended, cache} = attention(normed, cache, weights, position, sees, config)
    x = Nx.add(x, attended)
    normed = Fast.rms_norm(x, weights["post_attention_layernorm.weight"], eps: config.eps)
    {cache, Nx.add(x, feed_forward(normed, weights))}
  end

  defp attention(x, {keys, values}, weights, position, sees, config) do
    q = x |> linear(weights, "self_attn.q_proj") |> heads(config.heads, config.size)
    k = x |> linear(weights, "self_attn.k_proj") |> heads(config.groups, config.size)
    v = x |> linear(weights, "self_attn.v_proj") |> heads(config.groups, config.size)

    [q, k] =
      for {x, name} <- [{q, "q"}, {k, "k"}] do
        x
        |> normed(weights["self_attn.#{name}_norm.weight"], config.eps)
        |> turned(position, config.rope)
      end

    keys = Fast.update_cache(keys, k, position)
    values = Fast.update_cache(values, v, position)
    attended = Fast.scaled_dot_product_attention(q, keys, values, sees)
    {attended |> joined() |> linear(weights, "self_attn.o_proj"), {keys, values}}
  end

  # Only Qwen3 has these norms.
  defp normed(x, nil, _eps), do: x
  defp normed(x, weight, eps), do: Fast.rms_norm(x, weight, eps: eps)

  defp turned(x, position, frequencies: angles),
    do: Fast.rope(x, position, frequencies: Nx.tensor(angles, type: :f32))

  defp turned(x, position, opts), do: Fast.rope(x, position, opts)

  defp feed_forward(x, weights) do
    gate = linear(x, weights, "mlp.gate_proj")
    up = linear(x, weights, "mlp.up_proj")
    gate |> Fast.swiglu(up) |> linear(weights, "mlp.down_proj")
  end

  # Kernels are `{outputs, inputs}`.
  defp linear(x, weights, name) do
    y = Nx.dot(x, [-1], weights[name <> ".weight"], [-1])
    if bias = weights[name <> ".bias"], do: Nx.add(y, bias), else: y
  end

  defp heads(x, heads, size) do
    {batch, length, _} = x.shape
    x |> Nx.reshape({batch, length, heads, size}) |> Nx.transpose(axes: [0, 2, 1, 3])
  end

  defp joined(x) do
    {batch, _heads, length, _size} = x.shape
    x |> Nx.transpose(axes: [0, 2, 1, 3]) |> Nx.reshape({batch, length, :auto})
  end
end
