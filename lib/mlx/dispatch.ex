defmodule Mlx.Dispatch do
  @moduledoc false

  # Hands work to the engine and waits for what it answers. Nothing here blocks a
  # scheduler: the engine answers with a message.

  alias Mlx.{Backend, Function, Graph, Lowering, Native}
  alias Mlx.Lowering.Narrow
  alias Nx.Tensor, as: T

  @doc """
  Runs an operation of `Nx.Backend` on the device of its operands.
  """
  def run(op, out, args) do
    tensors = tensors(args, [])
    run(op, out, args, device(tensors), tensors)
  end

  @doc """
  Runs an operation that has no operands on a device.
  """
  def create(op, out, args, device), do: run(op, out, args, device, [])

  @doc """
  Runs an operation that folds with a function, the third argument.
  """
  def run_fold(op, out, [tensor, acc, fun | rest]) do
    function = Function.fold(fun, tensor.type, acc.type)
    run(op, out, [tensor, acc, function.captured, function | rest])
  end

  defp run(op, out, args, :traced, _tensors), do: Function.run(op, out, args)

  defp run(op, out, args, device, tensors) do
    check_type!(out.type, device)
    [ref] = submit([lower(op, out, nodes(args, 0), args)], tensors, device)
    wrap(out, ref, device)
  end

  # The only operation to which the bits of a narrow type matter.
  defp lower(:bitcast, out, [node], [tensor]), do: Narrow.bitcast(node, tensor.type, out.type)
  defp lower(op, out, nodes, _args), do: Lowering.lower(op, out, nodes)

  @doc """
  Runs a block of Nx's, by its own definition `fun` if the engine has nothing better.
  """
  def run_block(block, out, args, fun) do
    tensors = tensors(args, [])
    device = device(tensors)

    case device != :traced && Lowering.lower_block(block, out, nodes(args, 0)) do
      none when none in [nil, false] ->
        apply(fun, [block | args])

      %Graph{} = node ->
        check_type!(out.type, device)
        [ref] = submit([node], tensors, device)
        wrap(out, ref, device)

      nodes when is_tuple(nodes) ->
        outs = Tuple.to_list(out)
        Enum.each(outs, &check_type!(&1.type, device))
        refs = nodes |> Tuple.to_list() |> submit(tensors, device)
        outs = Enum.zip_with(outs, refs, &wrap(&1, &2, device))
        List.to_tuple(outs)
    end
  end

  @doc """
  Queues what makes the nodes of the arrays of tensors, which are the first inputs, in
  the order of the arguments.
  """
  def submit(nodes, tensors, device) do
    refs = refs(tensors, device)
    {instructions, registers} = Graph.flatten(nodes, length(refs))
    queue(device, fn -> Native.stream_submit(device, instructions, refs, registers) end)
  end

  @doc """
  Copies a binary to a device.
  """
  def from_binary(out, binary, :traced), do: from_binary(out, binary, Mlx.Device.default())

  def from_binary(out, binary, device) do
    check_type!(out.type, device)
    wrap(out, load(binary, out.shape, out.type, device), device)
  end

  @doc """
  The same values as a tensor of its own, on a device.
  """
  def copy(%T{data: %Backend{ref: ref}} = tensor, device) do
    check_type!(tensor.type, device)
    [ref] = queue(device, fn -> Native.stream_submit(device, [], [ref], [0]) end)
    wrap(tensor, ref, device)
  end

  def read(%T{data: %Backend{device: :traced}}), do: raise(Function.read_error())

  def read(%T{} = tensor) do
    Mlx.Telemetry.span(:to_binary, tensor, fn -> read_as(tensor, tensor.type) end)
  end

  defp read_as(%T{data: %Backend{ref: ref, device: device}} = tensor, {_, bits} = type) do
    if Narrow.narrow?(type) do
      shape = Backend.whole_shape(tensor)
      node = 0 |> Graph.input(Narrow.wide(type), shape) |> Narrow.encode(type)
      {instructions, registers} = Graph.flatten([node], 1)

      [ref] =
        queue(device, fn -> Native.stream_submit(device, instructions, [ref], registers) end)

      size = Tuple.product(shape) * bits
      <<binary::bitstring-size(size), _filler::bitstring>> = await(&Native.tensor_read(ref, &1))
      binary
    else
      await(&Native.tensor_read(ref, &1))
    end
  end

  @doc """
  Whether the byte of an array is not zero.
  """
  def truth(ref), do: await(&Native.tensor_read(ref, &1)) != <<0>>

  def eval(%T{data: %Backend{ref: ref}} = tensor) do
    Mlx.Telemetry.span(:eval, tensor, fn -> await(&Native.tensor_eval(ref, &1)) end)
  end

  def async_eval(%T{data: %Backend{ref: ref}}), do: ref |> Native.tensor_async_eval() |> ok!()

  def signature(%T{data: %Backend{ref: ref}}) do
    {type, dims} = await(&Native.tensor_signature(ref, &1))
    {String.to_atom(type), List.to_tuple(dims)}
  end

  def synchronize(device), do: await(&Native.stream_synchronize(device, &1))

  # Operands

  defp tensors([], acc), do: acc
  defp tensors([arg | args], acc), do: tensors(arg, tensors(args, acc))
  defp tensors(%T{} = tensor, acc), do: [tensor | acc]
  defp tensors(_arg, acc), do: acc

  # The arguments with nodes in the place of tensors.
  defp nodes([], _register), do: []

  defp nodes([%T{type: type, shape: shape} | args], register) do
    [Graph.input(register, Narrow.wide(type), shape) | nodes(args, register + 1)]
  end

  defp nodes([arg | args], register) do
    case is_list(arg) && tensors(arg, []) do
      none when none in [false, []] -> [arg | nodes(args, register)]
      found -> [nodes(arg, register) | nodes(args, register + length(found))]
    end
  end

  defp device(tensors), do: device(tensors, nil, tensors)

  # Stands for tensors of any device.
  defp device([%T{data: %Backend{device: :traced}} | _], _found, _all), do: :traced

  defp device([%T{data: %Backend{device: device}} | rest], found, all)
       when device == found or found == nil,
       do: device(rest, device, all)

  defp device([%T{data: %Backend{}} | _], _found, all), do: device_of_non_scalars(all)
  defp device([_other_backend | rest], found, all), do: device(rest, found, all)
  defp device([], nil, _all), do: Mlx.Device.default()
  defp device([], found, _all), do: found

  defp device_of_non_scalars(tensors) do
    devices =
      for %T{data: %Backend{device: device}, shape: shape} when shape != {} <- tensors, do: device

    if devices == [] or :gpu in devices, do: :gpu, else: :cpu
  end

  defp refs([], _device), do: []
  defp refs([tensor | rest], device), do: [ref(tensor, device) | refs(rest, device)]

  @doc """
  The array of a tensor, copied to the device if it is of another backend.
  """
  def ref(%T{data: %Backend{ref: ref}, type: type}, device) do
    check_type!(type, device)
    ref
  end

  def ref(%T{type: type} = tensor, device) do
    check_type!(type, device)
    load(Nx.to_binary(tensor), Backend.whole_shape(tensor), type, device)
  end

  def wrap(out, ref, device), do: %{out | data: %Backend{ref: ref, device: device}}

  # Types

  @doc """
  Raises unless arrays on the device can have the type.
  """
  def check_type!({kind, size}, _) when kind in [:u, :s] and size in [8, 16, 32, 64], do: :ok
  def check_type!({:f, size}, _) when size in [16, 32], do: :ok
  def check_type!({:bf, 16}, _), do: :ok
  def check_type!({:c, 64}, _), do: :ok
  def check_type!({:f, 64}, :cpu), do: :ok
  def check_type!({kind, size}, _) when kind in [:u, :s] and size in [2, 4], do: :ok
  def check_type!({kind, 8}, _) when kind in [:f, :f8_e4m3fn], do: :ok

  def check_type!({:f, 64}, :gpu) do
    raise Mlx.Error,
      kind: :type,
      message:
        "GPUs have no f64: cast to f32 with Nx.as_type/2, or use the CPU with " <>
          "Nx.backend_transfer(tensor, {Mlx.Backend, device: :cpu})"
  end

  def check_type!(type, _device) do
    raise Mlx.Error,
      kind: :type,
      message:
        "the type #{Nx.Type.to_string(type)} is not supported; supported are " <>
          "all of Nx's but c128, and f64 on the CPU only"
  end

  # The engine

  defp load(binary, shape, type, device) do
    if Narrow.narrow?(type) do
      check_size!(binary, shape, type)
      filler = rem(8 - rem(bit_size(binary), 8), 8)
      bytes = <<binary::bitstring, 0::size(filler)>>
      ref = load_bytes(bytes, {byte_size(bytes)}, {:u, 8}, device)
      node = 0 |> Graph.input({:u, 8}, {byte_size(bytes)}) |> Narrow.decode(type, shape)
      {instructions, registers} = Graph.flatten([node], 1)

      [ref] =
        queue(device, fn -> Native.stream_submit(device, instructions, [ref], registers) end)

      ref
    else
      load_bytes(binary, shape, type, device)
    end
  end

  defp check_size!(binary, shape, {_, bits} = type) do
    if bit_size(binary) != Tuple.product(shape) * bits do
      raise Mlx.Error,
        kind: :shape,
        message:
          "a tensor of #{Nx.Type.to_string(type)}#{inspect(shape)} has " <>
            "#{Tuple.product(shape) * bits} bits, the binary has #{bit_size(binary)}"
    end
  end

  defp load_bytes(binary, shape, type, device) do
    [ref] =
      queue(device, fn ->
        with {status, ref} when status in [:ok, :collect] <-
               Native.tensor_from_binary(device, binary, Tuple.to_list(shape), type),
             do: {status, [ref]}
      end)

    ref
  end

  @doc """
  Makes a request again for as long as the queue of the target is full.
  """
  def queue(target, request) do
    case request.() do
      {:ok, refs} ->
        settle(refs)

      # A tensor is a few words to the collector, however much memory is behind it.
      {:collect, refs} ->
        :erlang.garbage_collect()
        settle(refs)

      :full ->
        await_room(target)
        queue(target, request)

      {:error, error} ->
        raise Mlx.Error.from_native(error)
    end
  end

  defp settle(refs) do
    if :persistent_term.get({Mlx, :dispatch}, :pipelined) == :sync do
      Enum.each(refs, fn ref -> await(&Native.tensor_eval(ref, &1)) end)
    end

    refs
  end

  defp await_room(target) do
    tag = make_ref()

    case ok!(Native.stream_await_room(target, tag)) do
      :room -> :ok
      :pending -> receive(do: ({^tag, :room} -> :ok))
    end
  end

  defp await(request) do
    tag = make_ref()

    case ok!(request.(tag)) do
      :pending -> receive(do: ({^tag, outcome} -> ok!(outcome)))
      value -> value
    end
  end

  @doc """
  The value of an answer of the engine.
  """
  def ok!({:ok, value}), do: value
  def ok!({:error, error}), do: raise(Mlx.Error.from_native(error))
end
