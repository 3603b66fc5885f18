defmodule Mlx.Generation.SamplerTest do
  use ExUnit.Case, async: true

  alias Mlx.Generation

  @vocabulary 40
  @rows 6

  # What Nx.BinaryBackend and lists make of the definitions.
  defp expected(logits, key, opts) do
    {parts, _key} = Nx.Random.uniform(key, shape: {length(logits)}, type: :f32)
    past = Keyword.get(opts, :past, List.duplicate([], length(logits)))

    for {row, past, part} <- Enum.zip([logits, past, Nx.to_flat_list(parts)]) do
      row
      |> penalized(past, opts[:repetition_penalty])
      |> Enum.map(&(&1 / (opts[:temperature] || 1.0)))
      |> Enum.with_index()
      |> order(opts)
      |> top_k(opts[:top_k])
      |> probabilities()
      |> top_p(opts[:top_p])
      |> min_p(opts[:min_p])
      |> draw(part)
    end
  end

  defp penalized(row, _past, nil), do: row

  defp penalized(row, past, penalty) do
    for {logit, id} <- Enum.with_index(row) do
      cond do
        id not in past -> logit
        logit > 0 -> logit / penalty
        true -> logit * penalty
      end
    end
  end

  # A number draws from the likeliest on, or from the first on where all are kept.
  defp order(row, opts) do
    if opts[:top_k] || opts[:top_p], do: Enum.sort_by(row, &elem(&1, 0), :desc), else: row
  end

  defp top_k(row, nil), do: row
  defp top_k(row, k), do: Enum.take(row, k)

  defp probabilities(row) do
    largest = row |> Enum.map(&elem(&1, 0)) |> Enum.max()
    powers = for {logit, id} <- row, do: {:math.exp(logit - largest), id}
    sum = powers |> Enum.map(&elem(&1, 0)) |> Enum.sum()
    for {power, id} <- powers, do: {power / sum, id}
  end

  defp top_p(row, nil), do: row

  defp top_p(row, top_p) do
    {kept, _sum} =
      Enum.flat_map_reduce(row, 0.0, fn {p, id}, sum ->
        {if(sum < top_p, do: [{p, id}], else: []), sum + p}
      end)

    kept
  end

  defp min_p(row, nil), do: row

  defp min_p(row, min_p) do
    largest = row |> Enum.map(&elem(&1, 0)) |> Enum.max()
    Enum.filter(row, fn {p, _id} -> p >= largest * min_p end)
  end

  defp draw(row, part) do
    goal = part * (row |> Enum.map(&elem(&1, 0)) |> Enum.sum())

    Enum.reduce_while(row, 0.0, fn {p, id}, sum ->
      if sum + p > goal, do: {:halt, id}, else: {:cont, sum + p}
    end)
  end

  @settings [
    [],
    [temperature: 0.5],
    [top_k: 1],
    [top_k: 5],
    [top_k: 1000],
    [top_p: 0.3],
    [top_p: 0.9],
    [top_p: 1.0],
    [top_p: 1.0e-9],
    [min_p: 0.2],
    [min_p: 1.0],
    [top_k: 10, top_p: 0.8, min_p: 0.1, temperature: 1.7],
    [repetition_penalty: 3.0, past: true],
    [repetition_penalty: 0.5, past: true, temperature: 0.8, top_p: 0.7]
  ]

  for settings <- @settings do
    test "#{inspect(settings)} is as defined, on every backend and compiled" do
      settings = unquote(settings)

      for seed <- 1..8 do
        {logits, key} =
          Nx.Random.normal(Nx.Random.key(seed), 0.0, 2.0, shape: {@rows, @vocabulary})

        {past, key} = Nx.Random.randint(key, 0, @vocabulary, shape: {@rows, 7})
        given = if settings[:past], do: Keyword.put(settings, :past, past), else: settings
        lists = Keyword.replace(settings, :past, Nx.to_list(past))
        expected = expected(Nx.to_list(logits), key, lists)
        {tokens, _key} = Generation.sample(logits, key, given)
        assert Nx.to_list(tokens) == expected
        assert tokens.type == {:s, 32}

        [logits, key, past] =
          for x <- [logits, key, past], do: Nx.backend_copy(x, Mlx.Backend)

        given = if settings[:past], do: Keyword.put(settings, :past, past), else: settings
        {eager, next} = Generation.sample(logits, key, given)
        assert Nx.to_list(eager) == expected
        compiled = Nx.Defn.jit(sampler(settings), compiler: Mlx.Compiler)
        {compiled, compiled_next} = compiled.(logits, key, past)
        assert Nx.to_list(compiled) == expected
        assert Nx.to_list(compiled_next) == Nx.to_list(next)
      end
    end
  end

  defp sampler(settings) do
    fn logits, key, past ->
      opts = if settings[:past], do: Keyword.put(settings, :past, past), else: settings
      Generation.sample(logits, key, opts)
    end
  end

  test "temperature 0 is the likeliest token, whatever the filters" do
    logits = Nx.tensor([[0.0, 3.0, 1.0], [5.0, -1.0, 4.9]])
    key = Nx.Random.key(3)
    opts = [temperature: 0, top_k: 2, top_p: 0.1, min_p: 0.5]
    assert {tokens, ^key} = Generation.sample(logits, key, opts)
    assert Nx.to_list(tokens) == [1, 0]
    past = Nx.tensor([[1, 1], [0, 0]])
    opts = [temperature: 0, repetition_penalty: 4.0, past: past]
    assert {tokens, ^key} = Generation.sample(logits, key, opts)
    assert Nx.to_list(tokens) == [2, 2]
  end

  test "tokens are as frequent as they are likely" do
    count = 4000
    logits = Nx.broadcast(Nx.log(Nx.tensor([0.1, 0.2, 0.3, 0.4])), {count, 4})
    logits = Nx.backend_copy(logits, Mlx.Backend)
    {tokens, _key} = Generation.sample(logits, Nx.Random.key(11))
    found = tokens |> Nx.to_list() |> Enum.frequencies()
    for id <- 0..3, do: assert_in_delta(found[id] / count, (id + 1) / 10, 0.04)
  end

  test "infinitely unlikely tokens are not drawn" do
    logits = Nx.tensor([[:neg_infinity, 0.0, :neg_infinity, 0.0]]) |> Nx.broadcast({500, 4})
    {tokens, _key} = Generation.sample(logits, Nx.Random.key(5))
    assert tokens |> Nx.to_list() |> Enum.uniq() |> Enum.sort() == [1, 3]
  end

  test "what is none of the options is refused" do
    logits = Nx.tensor([[0.0, 1.0]])

    for wrong <- [
          [temperature: -1],
          [temperature: "1"],
          [top_k: 0],
          [top_k: 1.5],
          [top_p: 0],
          [top_p: 1.1],
          [min_p: -0.1],
          [min_p: 2],
          [repetition_penalty: 0, past: logits],
          [repetition_penalty: 2.0],
          [other: 1]
        ] do
      assert_raise ArgumentError, fn -> Generation.sample(logits, Nx.Random.key(1), wrong) end
    end
  end
end
