defmodule Mlx.Dispatch do
  @moduledoc false

  # Hands work to the engine and waits for what it answers. Nothing here blocks a
  # scheduler: the engine answers with a message.

  import Mlx.Debug, only: [check_bounds: 4, check_finite: 4]
  alias Mlx.{Backend, Downcast, Function, Graph, Lowering, Native}
  alias Mlx.Lowering.{Narrow, Quantization}
  alias Nx.Tensor, as: T

  @doc """
  Runs an operation of `Nx.Backend` on the device of its operands.
  """
  def run(op, out, args), do: run(op, out, args, operands(args))

  @doc """
  Runs an operation that has no operands on a device.
  """
  def create(op, out, args, device), do: run(op, out, args, {device, args, []})

  @doc """
  Runs an operation that folds with a function, the third argument.
  """
  def run_fold(op, out, [tensor, acc, fun | rest]) do
    device = device([tensor, acc])
    function = Function.fold(fun, tensor.type, acc.type, device)
    args = [tensor, acc, function.captured, function | rest]
    run(op, out, args, operands(args, device))
  end

  defp run(op, out, args, {:traced, _nodes, _refs}), do: Function.run(op, out, args)

  defp run(op, out, args, {device, nodes, refs}) do
    check_type!(out.type, device)
    check_bounds(op, nodes, tensors(args, []), device)
    node = lower(op, out, nodes, args, device)
    check_finite(result(node, out, refs, device), op, tensors(args, []), device)
  end

  # What is quantized stays so until an operation needs the numbers.
  defp result(node, out, refs, device) do
    if Quantization.deferred?(node),
      do: %{out | data: %Backend{ref: nil, device: device, deferred: {node, refs}}},
      else: wrap(out, one(node, refs, device), device)
  end

  # The only operation to which the bits of a type matter that MLX lacks.
  defp lower(:bitcast, out, [node], [tensor], device),
    do: Narrow.bitcast(node, tensor.type, out.type, Downcast.stored(out.type, device))

  defp lower(op, out, nodes, _args, device),
    do: Lowering.lower(op, Downcast.out(out, device), nodes)

  @doc """
  Runs a block of Nx's, by its own definition `fun` if the engine has nothing better.
  """
  def run_block(block, out, args, fun) do
    {device, nodes, refs} = operands(args)

    case device != :traced && Lowering.lower_block(block, Downcast.out(out, device), nodes) do
      none when none in [nil, false] ->
        apply(fun, [block | args])

      %Graph{} = node ->
        check_type!(out.type, device)
        check_bounds(block, nodes, tensors(args, []), device)
        check_finite(result(node, out, refs, device), block, tensors(args, []), device)

      nodes when is_tuple(nodes) ->
        outs = Tuple.to_list(out)
        Enum.each(outs, &check_type!(&1.type, device))
        refs = nodes |> Tuple.to_list() |> submit_all(refs, device)
        outs = Enum.zip_with(outs, refs, &wrap(&1, &2, device))
        check_finite(List.to_tuple(outs), block, tensors(args, []), device)
    end
  end

  @doc """
  The values of nodes whose inputs are the tensors, as binaries.
  """
  def values(nodes, tensors, device) do
    refs = submit(nodes, tensors, device)
    Enum.map(refs, fn ref -> await(&Native.tensor_read(ref, &1)) end)
  end

  @doc """
  Queues what makes the nodes of the arrays of tensors, which are the first inputs, in
  the order of the arguments.
  """
  def submit(nodes, tensors, device), do: submit_all(nodes, refs(tensors, device), device)

  defp submit_all(nodes, refs, device) do
    {instructions, registers} = Graph.flatten(nodes, length(refs))
    submit_instructions(device, instructions, refs, registers)
  end

  defp submit_instructions(device, instructions, refs, registers),
    do: queue(device, &Native.stream_submit(&1, instructions, refs, registers))

  @doc """
  Copies a binary to a device.
  """
  def from_binary(out, binary, :traced), do: from_binary(out, binary, Mlx.Device.default())

  def from_binary(out, binary, device) do
    check_type!(out.type, device)
    wrap(out, load(binary, out.shape, out.type, device), device)
  end

  @doc """
  A tensor of bytes of which `load` makes an array, given a device, dimensions and a type.
  """
  def from_bytes(out, device, load) do
    check_type!(out.type, device)

    ref =
      if Downcast.stored(out.type, device) == out.type do
        load.(device, Tuple.to_list(out.shape), out.type)
      else
        {shape, bits} = Narrow.encoding(out.type, out.shape)
        device |> load.(Tuple.to_list(shape), bits) |> decoded(out.type, out.shape, device)
      end

    wrap(out, ref, device)
  end

  @doc """
  The same values as a tensor of its own, on a device.
  """
  def copy(%T{} = tensor, device) do
    check_type!(tensor.type, device)
    ref = across(tensor, device)
    [ref] = submit_instructions(device, [], [ref], [0])
    wrap(tensor, ref, device)
  end

  @doc """
  The array of a tensor in the type that it has on another device.
  """
  def across(%T{data: %Backend{device: from}, type: type} = tensor, to) do
    ref = array(tensor)

    case {Downcast.stored(type, from), Downcast.stored(type, to)} do
      {same, same} ->
        ref

      # The CPU has both types.
      {there, here} ->
        shape = Backend.whole_shape(tensor)
        0 |> Graph.input(there, shape) |> Lowering.Shape.cast(here) |> one(ref, :cpu)
    end
  end

  def read(%T{data: %Backend{device: :traced}}), do: raise(Function.read_error())

  def read(%T{} = tensor) do
    Mlx.Telemetry.span(:to_binary, tensor, fn -> read_values(tensor) end)
  end

  defp read_values(%T{type: {_, bits}} = tensor) do
    ref = array(tensor)

    case encoded(wrap(tensor, ref, tensor.data.device)) do
      ^ref ->
        await(&Native.tensor_read(ref, &1))

      ref ->
        size = (tensor |> Backend.whole_shape() |> Tuple.product()) * bits
        <<binary::bitstring-size(size), _filler::bitstring>> = await(&Native.tensor_read(ref, &1))
        binary
    end
  end

  @doc """
  An array of the bytes of a tensor, its own where MLX has the type.
  """
  def encoded(%T{data: %Backend{device: :traced}}), do: raise(Function.read_error())

  def encoded(%T{data: %Backend{device: device}, type: type} = tensor) do
    ref = array(tensor)

    case Downcast.stored(type, device) do
      ^type ->
        ref

      stored ->
        shape = Backend.whole_shape(tensor)
        0 |> Graph.input(stored, shape) |> Narrow.encode(type) |> one(ref, device)
    end
  end

  @doc """
  Whether the byte of an array is not zero.
  """
  def truth(ref), do: await(&Native.tensor_read(ref, &1)) != <<0>>

  def eval(tensors) do
    refs = Enum.flat_map(tensors, &arrays/1)
    Mlx.Telemetry.eval(tensors, fn -> await(&Native.tensor_eval(refs, &1)) end)
  end

  @doc """
  Whether somebody has waited for the values of a tensor.
  """
  def computed?(%T{data: %Backend{device: :traced}}), do: true

  def computed?(tensor),
    do: Enum.all?(arrays(tensor), &(&1 |> Native.tensor_is_computed() |> ok!()))

  def async_eval(tensor),
    do: for(ref <- arrays(tensor), do: ref |> Native.tensor_async_eval() |> ok!())

  def signature(tensor) do
    ref = array(tensor)
    {type, dims} = await(&Native.tensor_signature(ref, &1))
    {String.to_atom(type), List.to_tuple(dims)}
  end

  def synchronize(target), do: await(&Native.stream_synchronize(target, &1))

  # Operands

  # The device of arguments, with nodes in the place of tensors, and their arrays.
  defp operands(args) do
    with nil <- plain(args, nil, 0, [], []),
         do: operands(args, args |> tensors([]) |> device())
  end

  defp operands(_args, :traced), do: {:traced, [], []}

  defp operands(args, device),
    do: {device, nodes(args, 0, device), args |> tensors([]) |> refs(device)}

  # Those of most operations are arrays of one device and numbers, at which one look is enough.
  defp plain([%T{data: data, type: type, shape: shape} | args], on, register, nodes, refs) do
    case data do
      %Backend{device: device, ref: ref, deferred: nil}
      when device != :traced and (device == on or on == nil) ->
        node = Graph.input(register, Downcast.stored(type, device), shape)
        plain(args, device, register + 1, [node | nodes], [ref | refs])

      _other ->
        nil
    end
  end

  defp plain([[_ | _] = list | args], on, register, nodes, refs) do
    if tensors(list, []) == [], do: plain(args, on, register, [list | nodes], refs)
  end

  defp plain([arg | args], on, register, nodes, refs),
    do: plain(args, on, register, [arg | nodes], refs)

  defp plain([], nil, _register, _nodes, _refs), do: nil

  defp plain([], on, _register, nodes, refs),
    do: {on, :lists.reverse(nodes), :lists.reverse(refs)}

  defp tensors([], acc), do: acc
  defp tensors([arg | args], acc), do: tensors(arg, tensors(args, acc))
  defp tensors(%T{} = tensor, acc), do: [tensor | acc]
  defp tensors(_arg, acc), do: acc

  # The arguments with nodes in the place of tensors.
  defp nodes([], _register, _device), do: []

  defp nodes([%T{data: data, type: type, shape: shape} | args], register, device) do
    case data do
      %Backend{deferred: {node, refs}} ->
        [Graph.shift(node, register) | nodes(args, register + length(refs), device)]

      _one_array ->
        node = Graph.input(register, Downcast.stored(type, device), shape)
        [node | nodes(args, register + 1, device)]
    end
  end

  defp nodes([[_ | _] = list | args], register, device) do
    case tensors(list, []) do
      [] ->
        [list | nodes(args, register, device)]

      found ->
        [nodes(list, register, device) | nodes(args, register + inputs(found), device)]
    end
  end

  defp nodes([arg | args], register, device), do: [arg | nodes(args, register, device)]

  defp inputs(tensors), do: tensors |> Enum.map(&length(arrays(&1))) |> Enum.sum()

  @doc """
  The node of a tensor on a device that is the input known by `id`.
  """
  def input(%T{type: type} = tensor, id, device) do
    Graph.input(id, Downcast.stored(type, device), Backend.whole_shape(tensor))
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

  defp refs([%T{data: %Backend{ref: ref, device: device, deferred: nil}} | rest], device),
    do: [ref | refs(rest, device)]

  defp refs([%T{data: %Backend{deferred: {_node, parts}}} | rest], device),
    do: parts ++ refs(rest, device)

  defp refs([tensor | rest], device), do: [ref(tensor, device) | refs(rest, device)]

  @doc """
  The arrays that a tensor holds.
  """
  def arrays(%T{data: %Backend{deferred: {_node, refs}}}), do: refs
  def arrays(%T{data: %Backend{ref: ref}}), do: [ref]
  def arrays(%T{}), do: [nil]

  @doc """
  The array of a tensor, which is made for each call if it is quantized.
  """
  def array(%T{data: %Backend{deferred: {node, refs}, device: device}}),
    do: one(node, refs, device)

  def array(%T{data: %Backend{ref: ref}}), do: ref

  @doc """
  The same tensor with an array of its own, if it is quantized.
  """
  def dense(%T{data: %Backend{deferred: {_node, _refs}, device: device}} = tensor),
    do: wrap(tensor, array(tensor), device)

  def dense(tensor), do: tensor

  @doc """
  The array of a tensor, copied to the device if it is of another backend.
  """
  def ref(%T{data: %Backend{ref: ref, deferred: nil, device: device}}, device), do: ref

  def ref(%T{data: %Backend{}, type: {:f, 64}} = tensor, to) do
    check_type!(tensor.type, to)
    across(tensor, to)
  end

  def ref(%T{data: %Backend{}, type: type} = tensor, device) do
    check_type!(type, device)
    array(tensor)
  end

  def ref(%T{type: type} = tensor, device) do
    check_type!(type, device)
    load(Nx.to_binary(tensor), Backend.whole_shape(tensor), type, device)
  end

  def wrap(out, ref, device), do: %{out | data: %Backend{ref: ref, device: device}}

  @doc """
  A container of templates with arrays, in order, as their values.
  """
  def wrap_all(templates, refs, device) do
    {container, []} =
      Nx.Defn.Composite.traverse(templates, refs, fn template, [ref | refs] ->
        {wrap(template, ref, device), refs}
      end)

    container
  end

  # Types

  @doc """
  Raises unless arrays on the device can have the type.
  """
  def check_type!({kind, size}, _) when kind in [:u, :s] and size in [8, 16, 32, 64], do: :ok
  def check_type!({:f, size}, _) when size in [16, 32], do: :ok
  def check_type!({:bf, 16}, _), do: :ok
  def check_type!({:c, 64}, _), do: :ok
  def check_type!({:f, 64}, device), do: Downcast.check!(device)
  def check_type!({kind, size}, _) when kind in [:u, :s] and size in [2, 4], do: :ok
  def check_type!({kind, 8}, _) when kind in [:f, :f8_e4m3fn], do: :ok

  def check_type!(type, _device) do
    raise Mlx.Error,
      kind: :type,
      message:
        "the type #{Nx.Type.to_string(type)} is not supported; supported are " <>
          "all of Nx's but c128, and f64 on the CPU only"
  end

  # The engine

  defp load(binary, shape, type, device) do
    if Downcast.stored(type, device) == type do
      load_bytes(binary, shape, type, device)
    else
      check_size!(binary, shape, type)
      filler = rem(8 - rem(bit_size(binary), 8), 8)
      {dims, bits} = Narrow.encoding(type, shape)
      bytes = <<binary::bitstring, 0::size(filler)>>
      bytes |> load_bytes(dims, bits, device) |> decoded(type, shape, device)
    end
  end

  defp decoded(ref, type, shape, device) do
    {dims, bits} = Narrow.encoding(type, shape)
    0 |> Graph.input(bits, dims) |> Narrow.decode(type, shape) |> one(ref, device)
  end

  # The array of a node whose inputs are other arrays.
  defp one(node, refs, device) when is_list(refs) do
    if Graph.single?(node, length(refs)) do
      run_row(node, refs, device)
    else
      [ref] = submit_all([node], refs, device)
      ref
    end
  end

  defp one(node, ref, device), do: one(node, [ref], device)

  # Without what calls of `queue/2` take, as most operations come here.
  defp run_row(%Graph{row: row, attributes: attributes} = node, refs, device) do
    target = Mlx.Stream.target(device)

    case Native.stream_run(target, row, refs, attributes) do
      :full ->
        await_room(target)
        run_row(node, refs, device)

      answer ->
        settle(queued(answer))
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
    queue(device, &Native.tensor_from_binary(&1, binary, Tuple.to_list(shape), type))
  end

  @doc """
  Makes a request of where the work of this process for a device goes, again for as long
  as the queue there is full.
  """
  def queue(device, request) do
    target = Mlx.Stream.target(device)

    case request.(target) do
      :full ->
        await_room(target)
        queue(device, request)

      answer ->
        settle(queued(answer))
    end
  end

  defp queued({:ok, made}), do: made

  defp queued({:collect, made}) do
    :erlang.garbage_collect()
    made
  end

  defp queued({:error, error}), do: raise(Mlx.Error.from_native(error))

  defp settle(made) do
    if Mlx.Config.get(:dispatch) == :sync,
      do: await(&Native.tensor_eval(List.wrap(made), &1))

    made
  end

  defp await_room(target) do
    tag = make_ref()

    case ok!(Native.stream_await_room(target, tag)) do
      :room -> :ok
      :pending -> receive(do: ({^tag, :room} -> :ok))
    end
  end

  @doc """
  The answer to a request of the engine, which a message may bring.
  """
  def await(request) do
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
