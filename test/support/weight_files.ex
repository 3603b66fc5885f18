defmodule Mlx.WeightFiles do
  @moduledoc """
  Files of weights for tests: those that Python made, and broken ones.
  """

  import ExUnit.Assertions
  alias Mlx.{TestDevice, Weights}

  @fixtures Path.expand("../fixtures/weights", __DIR__)

  # What a file may raise; anything else is a fault.
  @kinds [:io, :type, :shape]

  def fixture(name), do: Path.join(@fixtures, name)

  @doc """
  Writes bytes to a file of a name in a folder.
  """
  def write(folder, name, bytes) do
    path = Path.join(folder, name)
    File.write!(path, bytes)
    path
  end

  @doc """
  A file of safetensors with a header and so many bytes after it.
  """
  def safetensors(header, bytes) when is_integer(bytes),
    do: safetensors(header, :binary.copy(<<0>>, bytes))

  def safetensors(header, bytes) do
    header = if is_binary(header), do: header, else: JSON.encode!(header)
    <<byte_size(header)::little-64, header::binary, bytes::binary>>
  end

  @doc """
  Asserts that opening a file, or loading it, raises because of what is in it.
  """
  def assert_refused(path, message, opts \\ []) do
    error = assert_raise Mlx.Error, fn -> Weights.load(path, opts) end
    assert error.kind == :io
    assert error.message =~ message
    error
  end

  @doc """
  The values of a quantized weight in f32, from the definition of MLX's layout.
  """
  def dequantize(%Mlx.Quantization.Tensor{mode: :affine} = quantized) do
    %{bits: bits, group_size: group_size} = quantized
    words = quantized.packed |> Nx.backend_copy(Nx.BinaryBackend) |> Nx.to_flat_list()
    [scales, biases] = for part <- [quantized.scales, quantized.biases], do: floats(part)
    stream = for word <- words, into: <<>>, do: <<word::little-32>>

    values =
      stream
      |> integers(bits)
      |> Enum.chunk_every(group_size)
      |> Enum.zip_with(Enum.zip(scales, biases), fn group, {scale, bias} ->
        for integer <- group, do: integer * scale + bias
      end)

    values |> List.flatten() |> Nx.tensor(type: :f32, backend: Nx.BinaryBackend)
  end

  defp floats(tensor), do: tensor |> Nx.as_type(:f32) |> Nx.to_flat_list()

  defp integers(bytes, 8), do: :binary.bin_to_list(bytes)
  defp integers(bytes, 4), do: for(<<high::4, low::4 <- bytes>>, part <- [low, high], do: part)

  @doc """
  Loads `runs` mutations of a file, the same for a seed, and asserts that each gives
  tensors or an error that says what is wrong. Gives how many were refused.
  """
  def fuzz(bytes, path, seed, runs) do
    Enum.count(1..runs, fn run ->
      state = :rand.seed_s(:exsss, {seed, run, 0})
      File.write!(path, mutated(bytes, state))
      refused?(path, {seed, run})
    end)
  end

  defp refused?(path, run) do
    for {_name, value} <- Weights.load(path), do: read(value)
    false
  rescue
    error in Mlx.Error -> assert error.kind in @kinds, "#{inspect(run)}: #{inspect(error)}"
    other -> flunk("run #{inspect(run)}: #{Exception.format(:error, other, __STACKTRACE__)}")
  end

  defp read(%Nx.Tensor{} = tensor), do: Nx.to_binary(tensor)

  defp read(%Mlx.Quantization.Tensor{} = value),
    do: Enum.each([value.packed, value.scales], &read/1)

  defp mutated(bytes, state) do
    {count, state} = :rand.uniform_s(3, state)

    {bytes, _} =
      Enum.reduce(1..count, {bytes, state}, fn _, {bytes, state} -> mutate(bytes, state) end)

    bytes
  end

  @extremes [0, 1, -1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0x100000000]
  @texts [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "9999999999",
    "-1",
    "1e99",
    "null",
    "\\u0000",
    "%s%n"
  ]

  # Headers are at the start, or, of archives, at the end.
  defp mutate(bytes, state) do
    {kind, state} = :rand.uniform_s(7, state)
    {near, state} = :rand.uniform_s(3, state)
    size = byte_size(bytes)
    {from, width} = elem({{0, size}, {0, min(size, 400)}, {max(size - 400, 0), size}}, near - 1)
    {offset, state} = :rand.uniform_s(max(width - from, 1), state)
    at = min(from + offset - 1, size)
    {length, state} = :rand.uniform_s(16, state)
    {value, state} = :rand.uniform_s(256, state)
    <<head::binary-size(at), tail::binary>> = bytes
    rest = binary_part(tail, min(length, byte_size(tail)), max(byte_size(tail) - length, 0))
    {changed(kind, head, tail, rest, value - 1), state}
  end

  defp changed(1, head, <<_, tail::binary>>, _rest, value),
    do: <<head::binary, value, tail::binary>>

  defp changed(2, head, <<byte, tail::binary>>, _rest, value),
    do: <<head::binary, Bitwise.bxor(byte, Bitwise.bsl(1, rem(value, 8))), tail::binary>>

  defp changed(3, head, _tail, _rest, _value), do: head
  defp changed(4, head, _tail, rest, _value), do: head <> rest

  defp changed(5, head, tail, rest, _value),
    do: head <> binary_part(tail, 0, byte_size(tail) - byte_size(rest)) <> tail

  defp changed(6, head, <<_::64, tail::binary>>, _rest, value) do
    <<head::binary, Enum.at(@extremes, rem(value, length(@extremes)))::little-64, tail::binary>>
  end

  defp changed(_kind, head, tail, _rest, value) do
    head <> Enum.at(@texts, rem(value, length(@texts))) <> tail
  end

  @doc """
  The names of the tensors of a file that are of types that the device has.
  """
  def held(weights) do
    for name <- Weights.names(weights),
        TestDevice.type?(Weights.info(weights, name).type),
        do: name
  end

  @doc """
  How long a soak test is to last, in milliseconds.
  """
  def soak_time, do: String.to_integer(System.get_env("SOAK_SECONDS", "120")) * 1000

  @doc """
  Fuzzes the files, by their names, for some milliseconds with other seeds each time.
  """
  def soak(files, folder, milliseconds) do
    until = System.monotonic_time(:millisecond) + milliseconds

    Stream.iterate(1, &(&1 + 1))
    |> Enum.find(fn seed ->
      for {name, bytes} <- files, do: fuzz(bytes, Path.join(folder, name), seed, 200)
      System.monotonic_time(:millisecond) > until
    end)
  end
end
