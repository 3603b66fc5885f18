# Packs the weights of a network that reads digits into few bits, and says what that costs:
#
#     mix run examples/quantization.exs
#
# Or packs the matrices of a model's folder, as Hugging Face has them, and writes another that
# Mlx, mlx-lm and examples/language_model.exs read:
#
#     mix run examples/quantization.exs FOLDER NEW_FOLDER --bits 4 --group-size 64 --mode affine

Code.require_file("perceptron.exs", __DIR__)

Nx.default_backend(Mlx.Backend)

defmodule Pack do
  alias Mlx.Quantization

  # Matrices whose rows are long enough to be packed. Norms and biases stay.
  def folder(from, to, opts) do
    packed =
      for {name, weight} <- Mlx.Weights.load(from),
          into: %{},
          do: {name, pack(name, weight, opts)}

    Mlx.Weights.save(to, packed, config: Mlx.Weights.load_config(from))
    {size(Mlx.Weights.load(from)), size(packed)}
  end

  defp pack(name, %Nx.Tensor{shape: {_, columns}, type: type} = weight, opts)
       when rem(columns, 128) == 0 and type in [{:f, 32}, {:f, 16}, {:bf, 16}] do
    if String.ends_with?(name, ".weight"), do: Quantization.quantize(weight, opts), else: weight
  end

  defp pack(_name, weight, _opts), do: weight

  def network({w1, b1, w2, b2}, opts) do
    [w1, w2] = for w <- [w1, w2], do: Quantization.quantize(w, [axis: 0] ++ opts)
    {w1, b1, w2, b2}
  end

  @doc """
  The bytes of all tensors of a container.
  """
  def size(container) when is_map(container),
    do: container |> Map.values() |> List.to_tuple() |> size()

  def size(container) do
    [container] |> Nx.Defn.Composite.flatten_list() |> Enum.map(&Nx.byte_size/1) |> Enum.sum()
  end
end

defmodule Formats do
  @formats [
    [bits: 8],
    [bits: 4, group_size: 32],
    [bits: 4],
    [bits: 3],
    [bits: 2],
    [mode: :mxfp8],
    [mode: :nvfp4],
    [mode: :mxfp4]
  ]

  def print do
    {train, {images, digits}} = Perceptron.load()
    step = Nx.Defn.jit(&Perceptron.step/3, compiler: Mlx.Compiler)
    {weights, _momenta} = Perceptron.learn(Perceptron.init(42), step, train, 15)
    predict = Nx.Defn.jit(&Perceptron.predict/2, compiler: Mlx.Compiler)
    exact = predict.(weights, images)

    IO.puts("form                     bytes  read correctly  largest change of a score")
    row("f32", weights, exact, exact, digits)

    for opts <- @formats do
      packed = Pack.network(weights, opts)
      row(name(elem(packed, 0)), packed, predict.(packed, images), exact, digits)
    end
  end

  defp name(%{mode: mode, bits: bits, group_size: size}), do: "#{mode}, #{bits} bits by #{size}"

  defp row(name, weights, scores, exact, digits) do
    right = Float.round(Nx.to_number(Perceptron.accuracy(scores, digits)) * 100, 1)
    change = Nx.subtract(scores, exact) |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number()
    bytes = weights |> Pack.size() |> Integer.to_string() |> String.pad_leading(7)
    change = :erlang.float_to_binary(change, decimals: 2)

    IO.puts(
      "#{String.pad_trailing(name, 22)} #{bytes}  #{String.pad_leading("#{right}", 12)} %  #{change}"
    )
  end
end

{opts, folders} =
  OptionParser.parse!(System.argv(),
    strict: [bits: :integer, group_size: :integer, mode: :string]
  )

opts = Keyword.replace_lazy(opts, :mode, &String.to_atom/1)

case folders do
  [] ->
    Formats.print()

  [from, to] ->
    {before, packed} = Pack.folder(from, to, opts)
    IO.puts("#{div(before, 1024)} KiB became #{div(packed, 1024)} KiB in #{to}")
end
